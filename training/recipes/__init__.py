"""One module a published result: `RECIPE`, and a docstring with command, hardware, hours and what came out."""
