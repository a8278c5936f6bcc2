"""Looking inside recurrent language models: cells and gates over a text, and what they track.

After Karpathy, Johnson and Fei-Fei 2015, Visualizing and Understanding Recurrent Networks.
Only commands may import it. It imports finished runs and all below.
"""
