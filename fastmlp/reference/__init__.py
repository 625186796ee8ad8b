"""The mathematics of fastmlp in plain NumPy float64: the specification, executable.

Read this file to know what the compiled code must compute. It refuses to be fast, to handle threads or
element types, and to share a line with what it checks: it imports NumPy only. Nothing in the package
imports it but ``check`` (``python -m fastmlp check``); the tests do.

Letters: B batch rows, I fan-in, O fan-out; x, W (I, O), b (O,), z = x W + b, a = f(z); dz, dW, db are
derivatives of the batch's loss. Layer l = 0 .. L-1; ``coefs[l]`` is W of layer l, ``intercepts[l]`` its b.
Where a formula follows scikit-learn rather than the textbook, it says so.

    functions   activations, losses
    updates     update rules, learning rates
    training    networks, gradients, random numbers by position, epochs
"""

from fastmlp.reference.functions import (
    ACTIVATIONS as ACTIVATIONS,
)
from fastmlp.reference.functions import (
    LOSSES as LOSSES,
)
from fastmlp.reference.functions import (
    OUTPUTS as OUTPUTS,
)
from fastmlp.reference.functions import (
    SELU_ALPHA as SELU_ALPHA,
)
from fastmlp.reference.functions import (
    SELU_SCALE as SELU_SCALE,
)
from fastmlp.reference.functions import (
    absolute_error as absolute_error,
)
from fastmlp.reference.functions import (
    absolute_error_dz as absolute_error_dz,
)
from fastmlp.reference.functions import (
    binary_log_loss as binary_log_loss,
)
from fastmlp.reference.functions import (
    binary_log_loss_dz as binary_log_loss_dz,
)
from fastmlp.reference.functions import (
    elu as elu,
)
from fastmlp.reference.functions import (
    elu_derivative as elu_derivative,
)
from fastmlp.reference.functions import (
    exp as exp,
)
from fastmlp.reference.functions import (
    finite as finite,
)
from fastmlp.reference.functions import (
    gelu as gelu,
)
from fastmlp.reference.functions import (
    gelu_derivative as gelu_derivative,
)
from fastmlp.reference.functions import (
    huber as huber,
)
from fastmlp.reference.functions import (
    huber_dz as huber_dz,
)
from fastmlp.reference.functions import (
    identity as identity,
)
from fastmlp.reference.functions import (
    identity_derivative as identity_derivative,
)
from fastmlp.reference.functions import (
    leaky_relu as leaky_relu,
)
from fastmlp.reference.functions import (
    leaky_relu_derivative as leaky_relu_derivative,
)
from fastmlp.reference.functions import (
    log_loss as log_loss,
)
from fastmlp.reference.functions import (
    log_loss_dz as log_loss_dz,
)
from fastmlp.reference.functions import (
    logistic as logistic,
)
from fastmlp.reference.functions import (
    logistic_derivative as logistic_derivative,
)
from fastmlp.reference.functions import (
    mish as mish,
)
from fastmlp.reference.functions import (
    mish_derivative as mish_derivative,
)
from fastmlp.reference.functions import (
    normal_cdf as normal_cdf,
)
from fastmlp.reference.functions import (
    normal_density as normal_density,
)
from fastmlp.reference.functions import (
    poisson as poisson,
)
from fastmlp.reference.functions import (
    poisson_dz as poisson_dz,
)
from fastmlp.reference.functions import (
    quantile as quantile,
)
from fastmlp.reference.functions import (
    quantile_dz as quantile_dz,
)
from fastmlp.reference.functions import (
    relu as relu,
)
from fastmlp.reference.functions import (
    relu_derivative as relu_derivative,
)
from fastmlp.reference.functions import (
    selu as selu,
)
from fastmlp.reference.functions import (
    selu_derivative as selu_derivative,
)
from fastmlp.reference.functions import (
    silu as silu,
)
from fastmlp.reference.functions import (
    silu_derivative as silu_derivative,
)
from fastmlp.reference.functions import (
    softmax as softmax,
)
from fastmlp.reference.functions import (
    softplus as softplus,
)
from fastmlp.reference.functions import (
    softplus_derivative as softplus_derivative,
)
from fastmlp.reference.functions import (
    squared_error as squared_error,
)
from fastmlp.reference.functions import (
    squared_error_dz as squared_error_dz,
)
from fastmlp.reference.functions import (
    tanh as tanh,
)
from fastmlp.reference.functions import (
    tanh_derivative as tanh_derivative,
)
from fastmlp.reference.training import (
    INITIALISERS as INITIALISERS,
)
from fastmlp.reference.training import (
    NORM_EPSILON as NORM_EPSILON,
)
from fastmlp.reference.training import (
    NORM_MOMENTUM as NORM_MOMENTUM,
)
from fastmlp.reference.training import (
    PLAIN as PLAIN,
)
from fastmlp.reference.training import (
    STREAM_MASK as STREAM_MASK,
)
from fastmlp.reference.training import (
    STREAM_NOISE as STREAM_NOISE,
)
from fastmlp.reference.training import (
    Gradients as Gradients,
)
from fastmlp.reference.training import (
    Method as Method,
)
from fastmlp.reference.training import (
    Model as Model,
)
from fastmlp.reference.training import (
    adds_input as adds_input,
)
from fastmlp.reference.training import (
    augment as augment,
)
from fastmlp.reference.training import (
    batches as batches,
)
from fastmlp.reference.training import (
    clip as clip,
)
from fastmlp.reference.training import (
    epoch as epoch,
)
from fastmlp.reference.training import (
    forward as forward,
)
from fastmlp.reference.training import (
    forward_layers as forward_layers,
)
from fastmlp.reference.training import (
    gradients as gradients,
)
from fastmlp.reference.training import (
    initial as initial,
)
from fastmlp.reference.training import (
    initialise as initialise,
)
from fastmlp.reference.training import (
    keep as keep,
)
from fastmlp.reference.training import (
    loss_gradient as loss_gradient,
)
from fastmlp.reference.training import (
    new_model as new_model,
)
from fastmlp.reference.training import (
    normalise as normalise,
)
from fastmlp.reference.training import (
    normalise_fixed as normalise_fixed,
)
from fastmlp.reference.training import (
    normalise_gradient as normalise_gradient,
)
from fastmlp.reference.training import (
    normals as normals,
)
from fastmlp.reference.training import (
    orthogonal as orthogonal,
)
from fastmlp.reference.training import (
    output_function as output_function,
)
from fastmlp.reference.training import (
    penalty as penalty,
)
from fastmlp.reference.training import (
    penalty_gradient as penalty_gradient,
)
from fastmlp.reference.training import (
    philox as philox,
)
from fastmlp.reference.training import (
    predict as predict,
)
from fastmlp.reference.training import (
    running as running,
)
from fastmlp.reference.training import (
    soft_targets as soft_targets,
)
from fastmlp.reference.training import (
    step as step,
)
from fastmlp.reference.training import (
    unbiased_variance as unbiased_variance,
)
from fastmlp.reference.training import (
    words as words,
)
from fastmlp.reference.updates import (
    AVERAGES as AVERAGES,
)
from fastmlp.reference.updates import (
    OPTIMIZERS as OPTIMIZERS,
)
from fastmlp.reference.updates import (
    SCHEDULES as SCHEDULES,
)
from fastmlp.reference.updates import (
    Hyper as Hyper,
)
from fastmlp.reference.updates import (
    adagrad as adagrad,
)
from fastmlp.reference.updates import (
    adam as adam,
)
from fastmlp.reference.updates import (
    adam_hat as adam_hat,
)
from fastmlp.reference.updates import (
    adam_moments as adam_moments,
)
from fastmlp.reference.updates import (
    adamw as adamw,
)
from fastmlp.reference.updates import (
    amsgrad as amsgrad,
)
from fastmlp.reference.updates import (
    cosine_decay as cosine_decay,
)
from fastmlp.reference.updates import (
    exponential_decay as exponential_decay,
)
from fastmlp.reference.updates import (
    gradient as gradient,
)
from fastmlp.reference.updates import (
    half_wave as half_wave,
)
from fastmlp.reference.updates import (
    momentum as momentum,
)
from fastmlp.reference.updates import (
    nadam as nadam,
)
from fastmlp.reference.updates import (
    one_cycle as one_cycle,
)
from fastmlp.reference.updates import (
    rmsprop as rmsprop,
)
from fastmlp.reference.updates import (
    sgd as sgd,
)
from fastmlp.reference.updates import (
    sgd_momentum as sgd_momentum,
)
from fastmlp.reference.updates import (
    sgd_nesterov as sgd_nesterov,
)
from fastmlp.reference.updates import (
    step_decay as step_decay,
)
from fastmlp.reference.updates import (
    tidy as tidy,
)
from fastmlp.reference.updates import (
    warmup_cosine as warmup_cosine,
)
