"""What a test runs in a process of its own (:mod:`tests.helpers.processes`).

deployed            loads a pruned network, exports it, and answers             test_deployment.py
forking             forks programs that need torch from one that has it         test_ranks.py and others
forks               forks while other threads are in the core                   test_fork.py
interpreted_api     tests of backend="triton" under Triton's interpreter        test_kernels.py
out_of_memory       calls of the core with less memory than they take           test_room.py
patch_scipy         plugin: scipy's own tests call our functions                test_hierarchy.py
patch_sklearn       plugin: scikit-learn's own tests use our class              test_sklearn.py
imports             imports reprune, and says what comes with it                test_layers.py and others
sharded             processes that hold one model in parts                      test_fsdp.py
sharded_cases       what they do with it, and find                              test_fsdp.py
sharded_pruning     how they train and prune it                                test_fsdp.py
sharded_errors      what they meet                                              test_fsdp.py
sharded_undo        how they go back when one of them fails                     test_fsdp.py
sharded_memory      how much memory they take                                   test_fsdp.py
ranks               two processes that train, or differ at an event             test_ranks.py
workers             what each process of a distributed training does            test_ranks.py and another
"""
