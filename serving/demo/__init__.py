"""The bundled model: a small CodeGen that is built on the spot, with nothing downloaded."""
