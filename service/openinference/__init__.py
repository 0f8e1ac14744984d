"""The Open Inference Protocol v2 over REST, with the binary tensor extension; its routes are `routes/openinference.py`.

    tensors     datatypes, shapes and data, JSON and binary, both ways, with every bound checked
    compression bodies inflated within a bound, answers compressed
    messages    a body -> the request in it
    options     the parameters of a request
    pictures    the tensor `images` in its three forms -> network input
    answers     an answer -> tensors -> a body
    metadata    what a server and its models say of themselves, and of what was measured

Nothing here knows an HTTP framework.
"""
