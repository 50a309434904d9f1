"""Soutu's version, as logs tell it; looking it up among installed packages costs milliseconds."""

VERSION = "0.1.0"
