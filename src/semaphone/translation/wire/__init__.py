"""Devices and edges as processes of their own: gRPC streams of the messages in `talk.proto`."""
