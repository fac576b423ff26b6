"""How good speech is that crossed a link: quality, words, phones, melody, voice, and how sure the figures are."""
