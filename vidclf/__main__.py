"""`python -m vidclf VERB ...` is `vidclf VERB ...`."""

from vidclf.cli import main

if __name__ == "__main__":
    main()
