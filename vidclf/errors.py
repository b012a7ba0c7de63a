"""What a user catches: the error whose message is a sentence."""

from vidclf.system.errors import VidclfError as VidclfError
