"""A text tower of TIPSv2's architecture that learns a sentence encoder's vectors: phrases, vocabulary, loop."""
