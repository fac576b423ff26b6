"""`semaphone edge`: one edge of a translated talk as a server (LSSC-ST, Fig 1)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from semaphone.commands.translate import add_decoder_options, add_radio_options, build_channel

if TYPE_CHECKING:
    from semaphone.translation.models.base import TranslationModel
    from semaphone.translation.wire.security import Security


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("edge", help="run an edge server of translated talks")
    parser.add_argument("--listen", default="127.0.0.1:7000", metavar="HOST:PORT", help="where devices connect")
    parser.add_argument("--peer", default="", metavar="HOST:PORT", help="far edge for the talks of its own devices")
    parser.add_argument("--weights", default="", metavar="PATH", help="other weights of the model")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model")
    parser.add_argument("--most-talks", type=int, default=8, metavar="N", help="talks at the same time")
    parser.add_argument("--patience", type=float, default=30.0, metavar="S", help="seconds to wait for a listener")
    parser.add_argument("--tls-cert", default="", metavar="FILE", help="PEM certificate, needed beyond this machine")
    parser.add_argument("--tls-key", default="", metavar="FILE", help="PEM key of the certificate")
    add_client_security(parser)
    add_decoder_options(parser)
    add_radio_options(parser)
    parser.set_defaults(run=run)


def add_client_security(parser: argparse.ArgumentParser) -> None:
    """Options of everyone who connects to an edge."""
    parser.add_argument("--tls-ca", default="", metavar="FILE", help="PEM of who signed the other side's certificate")
    parser.add_argument("--token-file", default="", metavar="FILE", help="file with the shared token")


def client_security(args: argparse.Namespace) -> Security:
    """What the options say of TLS and token."""
    from semaphone.translation.wire.security import Security

    return Security(getattr(args, "tls_cert", ""), getattr(args, "tls_key", ""), args.tls_ca, args.token_file)


def model_of(weights: str, threads: int, **settings: Any) -> Any:
    """A function that gives the model of a talk from its opening; equal talks share one.

    `settings` are further ones of the embedded model.
    """
    import functools

    from semaphone.errors import InputError

    @functools.lru_cache(maxsize=8)
    def build(name: str, source: str, target: str, context: str, compressor: str) -> TranslationModel:
        if name == "seamless":
            from semaphone.translation.models.seamless import SeamlessConfig, SeamlessTranslator

            return SeamlessTranslator(SeamlessConfig(source, target, weights, threads))
        if name != "whisper":
            raise InputError(f"This edge does not have the model {name!r}.")
        if compressor not in ("cnn", "none"):
            raise InputError("Between processes the compressor is cnn or none.")
        from semaphone.translation.models.whisper import WhisperConfig, WhisperTranslator

        return WhisperTranslator(
            WhisperConfig(source, target, context, compressor, threads=threads, weights=weights, **settings)
        )

    def model_for(opening: Any) -> TranslationModel:
        return build(opening.model, opening.source, opening.target, opening.context, opening.compressor)

    return model_for


def run(args: argparse.Namespace) -> int:
    """Serves until it is stopped."""
    from semaphone.translation.radio import make_radio
    from semaphone.translation.wire.service import Edge, EdgeConfig

    config = EdgeConfig(args.listen, args.peer, args.most_talks, patience=args.patience, security=client_security(args))
    radio = make_radio(args.code, build_channel(args), args.code_weights, args.times)
    edge = Edge(config, model_of(args.weights, args.threads, doubt=args.doubt, beam=args.beam), radio)
    port = edge.start()
    print(f"listening on {args.listen.rpartition(':')[0]}:{port}", flush=True)
    try:
        edge.wait()
    finally:
        edge.stop()
    return 0
