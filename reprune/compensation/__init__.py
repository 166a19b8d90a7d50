"""Compensate a pruned network by least squares on a few images, without training.

Every layer from the first one that lost inputs on is fitted to what the dense network computes there, in the
order in which the network runs, so that each sees what the layers before it deliver now.

compensate   the public function: checks, fits, writes the new values
images       what the user gives as images, as one set of known size
calls        the operations that are intercepted, and their arguments by name
modes        who is told of the operations of a forward pass; evaluation mode
paused       a forward pass in a thread that stops before each intercepted operation
sequence     which operations run in which order, and how much memory they need
pair         both networks, and what is known of them beforehand
lockstep     both networks on all images, operation by operation
uses         all uses of a weight that is used several times
fitting      one layer after the other
layer        the rows of one layer, and its new weight and bias
patches      a layer as a matrix product
rows         the rows in folds, as they are or as sums
moments      sums over rows
normal       many rows: the normal equations
gram         fewer rows than inputs: the products of the rows with each other
ridge        the ridge that does best on images that were left out, and the solution
norms        BatchNorm, whose mean follows
report       what became of each layer
"""
