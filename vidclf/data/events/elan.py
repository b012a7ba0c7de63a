"""ELAN's annotations (.eaf), which are XML: tiers of annotations between time slots in milliseconds.

A tier's participant is the subject, its annotator the coder, and an annotation's text the label (the tier's name, if it
has none). Source: the EAF schema, https://www.mpi.nl/tools/elan/EAFv3.0.xsd
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import quote, unquote, urlparse
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, number
from vidclf.data.timelines import lanes
from vidclf.errors import VidclfError
from vidclf.system.terminal import say

NAME, ENDINGS, WRITES, PER_FRAME = "elan", (".eaf",), (".eaf",), False
VIDEO = "vidclf video of "  # the property that names a tier's video, where there are several


def fits(text: str) -> bool:
    """Return whether it is XML with ELAN's root."""
    return "<ANNOTATION_DOCUMENT" in text


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield every annotation that has times of its own."""
    try:
        root = fromstring(text, forbid_dtd=True)
    except (DefusedXmlException, ParseError, ValueError) as error:
        what = "it defines entities" if isinstance(error, DefusedXmlException) else f"it is no XML ({error})"
        raise VidclfError(f"{file}: {what}. Save it again in ELAN.") from error
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    films = [_path(media) for media in root.iter("MEDIA_DESCRIPTOR")]
    film_of = {item.get("NAME", "").removeprefix(VIDEO): item.text or "" for item in root.iter("PROPERTY")}
    if not films:
        raise VidclfError(f"{file}: it names no media file. Link the video in ELAN (Edit, Linked files).")
    if len(films) > 1 and films[0] not in film_of.values():
        say(f"{file}: it shows {len(films)} media files side by side; {films[0]}, the first, is used.")
    for tier in root.iter("TIER"):
        name = tier.get("TIER_ID", "")
        for row, annotation in enumerate(tier.iter("ALIGNABLE_ANNOTATION"), start=1):
            where = f"tier {name!r}, annotation {row}"
            start_s, end_s = (
                number(file, slots.get(annotation.get(key)) or "no time", where) / 1000
                for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
            )
            text = annotation.findtext("ANNOTATION_VALUE") or ""
            label = text if text.strip() else name
            who = {"subject": tier.get("PARTICIPANT", ""), "coder": tier.get("ANNOTATOR", "")}
            yield Event(
                film_of.get(name, films[0]), start_s, end_s, label if label.strip() else name, **who, where=where
            )
    if num := sum(1 for _ in root.iter("REF_ANNOTATION")):
        say(f"{file}: {num} annotations of other annotations have no times of their own and are left out.")


def _path(media: Element) -> str:
    url = media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL") or ""
    path = unquote(urlparse(url).path) if url.startswith("file:") else url
    return path.replace("\\", "/").removeprefix("./")


def write(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> bytes:
    """Return a document with a tier for each subject and class (of each video): annotations in a tier never overlap."""
    stamp = {"AUTHOR": "vidclf", "DATE": datetime.now().astimezone().isoformat(timespec="seconds")}
    root = Element("ANNOTATION_DOCUMENT", {**stamp, "FORMAT": "3.0", "VERSION": "3.0"})
    header = SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    films = sorted({event.path for event in events})
    for film in films:
        url = f"file://{quote(film)}" if film.startswith("/") else f"./{film}"
        media = {"MEDIA_URL": url, "RELATIVE_MEDIA_URL": url, "MIME_TYPE": guess_type(film)[0] or "video/*"}
        SubElement(header, "MEDIA_DESCRIPTOR", media)
    order, tiers = SubElement(root, "TIME_ORDER"), dict[tuple[str | int, ...], Element]()
    kinds = [(event.path, event.subject, event.coder, event.label) for event in events]
    for count, (event, kind, lane) in enumerate(zip(events, kinds, lanes(events, kinds), strict=True), start=1):
        key = (*kind, lane)
        if key not in tiers:
            parts = (event.subject, event.coder, event.label, event.path if len(films) > 1 else "")
            name = " ".join(filter(None, [*parts, str(lane + 1) if lane else ""]))
            name = f"{name} {len(tiers)}" if name in {tier.get("TIER_ID") for tier in tiers.values()} else name
            who = {"PARTICIPANT": event.subject, "ANNOTATOR": event.coder}
            tiers[key] = Element("TIER", {"LINGUISTIC_TYPE_REF": "event", "TIER_ID": name, **who})
            if len(films) > 1:
                SubElement(header, "PROPERTY", {"NAME": f"{VIDEO}{name}"}).text = event.path
        start, end = round(event.start_s * 1000), round(event.end_s * 1000)
        slots = f"ts{2 * count - 1}", f"ts{2 * count}"
        for slot, time in zip(slots, (start, max(end, start + 1)), strict=True):
            SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slot, "TIME_VALUE": str(time)})
        ends = {"ANNOTATION_ID": f"a{count}", "TIME_SLOT_REF1": slots[0], "TIME_SLOT_REF2": slots[1]}
        annotation = SubElement(SubElement(tiers[key], "ANNOTATION"), "ALIGNABLE_ANNOTATION", ends)
        SubElement(annotation, "ANNOTATION_VALUE").text = event.label
    root.extend(tiers.values())
    SubElement(root, "LINGUISTIC_TYPE", {"LINGUISTIC_TYPE_ID": "event", "TIME_ALIGNABLE": "true"})
    return tostring(root, "UTF-8", xml_declaration=True)
