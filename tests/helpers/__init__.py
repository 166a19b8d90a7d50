"""What tests import.

attentions          attentions in the ways in which networks write them
digests             everything in models, optimizers, pruners and random generators, as a digest
drawn               points that are hard on a clustering, by kind
exact               clustering in fractions: no rounding, and the rule for ties as it reads
forked              programs in processes forked from one that has imported torch
foreign             runs the tests of other libraries with ours in its place
hugging_face        transformers, where it is installed, and a small network of it
imports             what a process of its own met when it imported reprune
interpreter         makes Triton's interpreter faster
isas                the instruction sets whose loops this processor can run
loops               a small network, its optimizer and its pruner, and a step of training
masking             drawn networks, and the masked network that pruning must equal
nine_kinds          kinds of points on which backends agree to the last bit
layer_kinds         networks with every kind of layer that compensation fits
networks            small networks for plans, surgery and files
norms               norms over channels as networks define their own, and what only looks like them
optimizer_cases     optimizers, what each can train, and what the pruner does with it
oracles             independent judges of a clustering: scipy, definitions, a replay of the merges
own_width           attentions whose heads are as wide as their input
processes           Python in a process of its own that imports what this one does
ptx                 the PTX simulator, where there is one, and what is compiled for it
random_networks     random networks for fuzzing the graph
sharded             small networks in parts, and where they differ from plain ones
strategies          what hypothesis draws points from
told_time           a clock that is told what time it is
trainings           small trainings and their files
versions            torch's, for what the oldest supported one lacks
waits               calls that would make the host wait for a GPU
"""
