"""Files of predictions, with what is right and wrong in them.

Tasks may import it. It imports metrics, spans and the readers whose files it writes again.
"""
