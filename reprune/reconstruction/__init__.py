"""Measure how well the channels of a group make up for each other, as its consumers see them on images.

A consumer is a convolution or Linear layer whose weight loses inputs when channels of the group leave. What
least squares cannot make up for follows from the covariance of its inputs and from its weight, so channels
are picked in the order in which they explain most. An error counts by what it changes at the outputs of the
network, and the covariance as far as the images make it certain. It tells which channels to keep
(`criterion="covariance"`) and how many of each layer (`rule="error"`).

images       run a network on images, and add up what the consumers take
consumers    which input channels of a weight belong to which group
moments      the covariance of a consumer's inputs, and the products of its weights
sensitivity  what an error of a layer changes at the outputs of the network
greedy       the order of the channels, and what each one explains
"""
