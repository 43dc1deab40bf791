"""The bundled model: a small CodeGen, built locally without downloads."""
