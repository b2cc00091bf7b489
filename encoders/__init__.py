"""Encoders: each turns one modality (frames, sound or text) into vectors."""
