"""The colours of all pictures. Paper is white; a page with a dark one replaces them by name."""

from __future__ import annotations

INK, MUTED, FAINT, PAPER = "#1b2733", "#66727f", "#d5dbe1", "#ffffff"
RIGHT, SEED = "#1f5fa8", "#9dbcdd"  # what is right, or the one in question; one of several
WRONG = "#c2410c"  # what is wrong, or warns
STOPPED = "#c3ccd5"  # what was given up
