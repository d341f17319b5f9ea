//! Reading BuildKit's `--progress=rawjson`.
