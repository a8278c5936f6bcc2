"""Files of predictions and listings of their errors.

Tasks may import it. It imports metrics, spans and the readers whose file formats it writes.
"""
