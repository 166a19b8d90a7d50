"""Provide the Triton kernels, installed as `reprune.kernels`."""

if __name__ != "reprune.kernels":
    raise ImportError(
        f"this folder was imported as {__name__!r}: it is a part of the installed package; import "
        "reprune.kernels instead, and run tests with 'python -P -m pytest' so that the source folder does "
        "not hide it"
    )
