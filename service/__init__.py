"""The HTTP service: classifies images with ensembles of scale sequences and probes shift-equivariance.

Rooms, in the order in which a request passes them:

    server      the process: signals, the order of stopping, the exit status
    protocol    the HTTP parser, with bounds on heads and slowness
    app         puts the parts together: `create_app(settings)`, start and stop
    middleware  request id, access log, request histogram, the last net under errors
    checked     what every route asks first: a key, options given once
    uploads     bytes of a request -> encoded images (three forms, limits)
    images      encoded image -> uint8 pixels (limits, every mode as a viewer shows it)
    intake      the two before, and the model's own preparation
    engine      the models, and the way to the thread that computes
    batcher     admission by cost in passes, deadlines, draining; `queueing` is its queue, `pace` its clock, and
                `containment` what it does about batches that fail
    running     a batch on that thread; `sharing` finds the passes that its requests have in common
    answers     logits -> labels, probabilities, agreement
    schemas     the shapes of options and answers

`served` makes models of checkpoints, `warming` prepares their weights ahead, `reloading` takes over checkpoints that
change while serving, and `probes` makes work of equivariance requests; `holding` bounds the bytes of all bodies
together; `routes` has one file for each thing that the service does. `settings`, `errors`, `problems`, `options`,
`metrics`, `statistics`, `logs`, `tracing`, `workers`, `waiting`, `auth` and `context` serve all of them.
"""
