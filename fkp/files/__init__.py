"""Files from outside: checked, bounded, written whole or not at all."""
