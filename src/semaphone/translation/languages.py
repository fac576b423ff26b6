"""Names of languages: ISO 639-3 (what commands take) and the two-letter codes inside Whisper."""

from __future__ import annotations

from semaphone.errors import InputError

# ISO 639-3 → Whisper's token. Whisper mixes ISO 639-1 with a few codes of its own ("jw", "haw").
_PAIRS = """
    afr:af amh:am ara:ar asm:as aze:az bak:ba bel:be ben:bn bod:bo bos:bs bre:br bul:bg cat:ca ces:cs cmn:zh cym:cy
    dan:da deu:de ell:el eng:en est:et eus:eu fao:fo fas:fa fin:fi fra:fr glg:gl guj:gu hat:ht hau:ha haw:haw heb:he
    hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it jav:jw jpn:ja kan:kn kat:ka kaz:kk khm:km kor:ko lao:lo lat:la
    lav:lv lin:ln lit:lt ltz:lb mal:ml mar:mr mkd:mk mlg:mg mlt:mt mon:mn mri:mi msa:ms mya:my nep:ne nld:nl nno:nn
    nor:no oci:oc pan:pa pol:pl por:pt pus:ps ron:ro rus:ru san:sa sin:si slk:sk slv:sl sna:sn snd:sd som:so spa:es
    sqi:sq srp:sr sun:su swa:sw swe:sv tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tuk:tk tur:tr ukr:uk urd:ur uzb:uz
    vie:vi yid:yi yor:yo
"""
WHISPER: dict[str, str] = {code: short for code, _, short in (pair.partition(":") for pair in _PAIRS.split())}


def iso_code(name: str) -> str:
    """The ISO 639-3 code of a language given by that code or by Whisper's; InputError if it is unknown."""
    wanted = name.strip().lower()
    if wanted in WHISPER:
        return wanted
    for code, short in WHISPER.items():
        if short == wanted:
            return code
    raise InputError(f"{name!r} is not a language known here; use ISO 639-3 codes such as fra, cmn or eng.")
