"""The inspection of recurrent language models: cells and gates over a text, and the text properties that they track.

After Karpathy, Johnson and Fei-Fei 2015, Visualizing and Understanding Recurrent Networks.
Only commands may import it. It imports finished runs and all below.
"""
