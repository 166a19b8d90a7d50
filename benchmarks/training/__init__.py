"""Training on Fashion-MNIST.

accuracy        what the criterion is worth, pruned while training and in one shot
criteria        the other criteria
compensation    what compensation is worth, in one shot
duration        how much shorter training becomes
last_event      whether compensation helps at the last event of a training
networks        what compensation is worth on other kinds of networks
fashion         data, network and training loop of both
"""
