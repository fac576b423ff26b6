"""What a user would pick instead, all in the same weather: Opus, AAC, SoundStream, Codec 2, and a text link."""
