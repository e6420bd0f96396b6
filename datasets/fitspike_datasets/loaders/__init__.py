"""Readers of sets whose layout `fitspike.load` cannot be told in options. A card names them as "module:function"."""
