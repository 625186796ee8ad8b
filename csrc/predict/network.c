/* network.c: the six functions of fastmlp_predict.h. A network's layers are described once, as in
 * fastmlp/core/_plan.pyx; a row goes through forward_row, as in _predict.pyx.
 */
#include "fastmlp_predict.h"
#include "reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fastmlp_network {
    const fm_kernels *k;
    fm_description d; /* its lists are freed after open */
    ptrdiff_t inputs, outputs;
    size_t odd, scratch; /* bytes of scratch: before the outputs of layers with odd numbers, and all */
    fm_layer *layers;
    void *numbers;
};

static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Room for n reals in whole panels. */
static size_t room(const fm_kernels *k, ptrdiff_t n) {
    return rounded((size_t)((n + k->panel - 1) / k->panel * k->panel) * (size_t)k->element_size);
}

/* The kernels that the running CPU has, the best of them or those that FASTMLP_ISA names. */
static const fm_kernels *kernels(int element_size) {
    const char *wanted = getenv("FASTMLP_ISA");
    for (int i = 0; i < fm_isa_count(); i++)
        if (fm_isa_available(i) && (!wanted || !*wanted || strcmp(wanted, fm_isa_name(i)) == 0))
            return fm_isa_kernels(i, element_size);
    return NULL;
}

static int adds_input(const fm_description *d, ptrdiff_t l) {
    return d->residual && l < d->n_layers - 1 && d->sizes[l] == d->sizes[l + 1];
}

static int any_negative(const void *numbers, ptrdiff_t n, int size) {
    for (ptrdiff_t i = 0; i < n; i++)
        if ((size == 4 ? (double)((const float *)numbers)[i] : ((const double *)numbers)[i]) < 0)
            return 1;
    return 0;
}

/* A layer's arrays, one after the other from `at` on, which moves on. */
static int read_layer(fastmlp_network *network, fm_reader *reader, ptrdiff_t l, char **at, char *work) {
    const fm_description *d = &network->d;
    const fm_kernels *k = network->k;
    const ptrdiff_t I = d->sizes[l], O = d->sizes[l + 1];
    const size_t column = room(k, O);
    fm_layer *layer = &network->layers[l];
    layer->fan_in = I;
    layer->fan_out = O;
    layer->residual = adds_input(d, l);
    layer->activation = l < d->n_layers - 1       ? d->activations[l]
                        : d->output_is_activation ? d->output
                                                  : (int)FM_ACTIVATION_identity;
    layer->W = *at;
    *at += rounded((size_t)I * (size_t)O * (size_t)k->element_size);
    layer->b = *at;
    *at += column;
    if (!fm_reader_array(reader, "coefs", l, I * O, layer->W) || !fm_reader_array(reader, "intercepts", l, O, layer->b))
        return 0;
    if (!d->batch_norm || l == d->n_layers - 1)
        return 1;
    layer->scale = *at;
    layer->shift = *at + column;
    char *gamma = work, *mean = work + column, *variance = work + 2 * column;
    if (!fm_reader_array(reader, "scales", l, O, gamma) || !fm_reader_array(reader, "means", l, O, mean) ||
        !fm_reader_array(reader, "variances", l, O, variance))
        return 0;
    if (any_negative(variance, O, k->element_size))
        return fm_reader_fail(reader, "tensors variances must hold no negative numbers");
    k->fold_batch_norm(*at, *at + column, gamma, layer->b, mean, variance, O);
    *at += 2 * column;
    return 1;
}

static int build(fastmlp_network *network, fm_reader *reader) {
    const fm_description *d = &reader->description;
    const fm_kernels *k = network->k;
    size_t bytes = 64, work_bytes = 1, even = 0, odd = 0;
    char *work, *at;
    int done = 1;
    network->d = *d;
    for (ptrdiff_t l = 0; l < d->n_layers; l++) { /* all of them fit the file, so nothing overflows */
        const size_t column = room(k, d->sizes[l + 1]);
        bytes += rounded((size_t)d->sizes[l] * (size_t)d->sizes[l + 1] * (size_t)k->element_size) + 3 * column;
        work_bytes = 3 * column > work_bytes ? 3 * column : work_bytes;
        if (l < d->n_layers - 1 && l % 2 == 0)
            even = column > even ? column : even;
        else if (l < d->n_layers - 1)
            odd = column > odd ? column : odd;
    }
    network->inputs = d->sizes[0];
    network->outputs = d->sizes[d->n_layers];
    network->odd = even;
    network->scratch = even + odd + 64;
    network->layers = calloc((size_t)d->n_layers, sizeof(fm_layer));
    network->numbers = calloc(1, bytes); /* padding is zero */
    work = calloc(1, work_bytes);
    if (!network->layers || !network->numbers || !work) {
        free(work);
        return fm_reader_fail(reader, "there is not enough memory");
    }
    at = (char *)network->numbers + (-(uintptr_t)network->numbers & 63);
    for (ptrdiff_t l = 0; l < d->n_layers && done; l++)
        done = read_layer(network, reader, l, &at, work);
    free(work);
    return done;
}

fastmlp_network *fastmlp_open(const char *path, size_t element_size, char *message, size_t message_size) {
    fm_reader reader;
    fastmlp_network *network = NULL;
    int done = 0;
    memset(&reader, 0, sizeof(reader));
    if (path && (element_size == 4 || element_size == 8)) {
        const fm_kernels *k = kernels((int)element_size);
        network = calloc(1, sizeof(*network));
        if (!k || !network) {
            fm_reader_fail(&reader,
                           k ? "there is not enough memory" : "FASTMLP_ISA names no instruction set of this CPU");
        } else {
            network->k = k;
            done = fm_reader_open(&reader, path, k) && build(network, &reader);
        }
    } else {
        fm_reader_fail(&reader, path ? "element_size must be sizeof(float) or sizeof(double)" : "the path is NULL");
    }
    if (!done && message_size) {
        snprintf(message, message_size, "%.*s cannot be loaded: %s.", FASTMLP_MESSAGE - 290, path ? path : "NULL",
                 reader.reason);
    }
    fm_reader_close(&reader);
    if (!done) {
        fastmlp_close(network);
        return NULL;
    }
    network->d.sizes = NULL;
    network->d.activations = NULL;
    return network;
}

void fastmlp_close(fastmlp_network *network) {
    if (!network)
        return;
    free(network->layers);
    free(network->numbers);
    free(network);
}

size_t fastmlp_inputs(const fastmlp_network *network) { return (size_t)network->inputs; }
size_t fastmlp_outputs(const fastmlp_network *network) { return (size_t)network->outputs; }
size_t fastmlp_scratch(const fastmlp_network *network) { return network->scratch; }

void fastmlp_predict_row(const fastmlp_network *network, const void *x, void *y, void *scratch) {
    const fm_kernels *k = network->k;
    const ptrdiff_t n = network->d.n_layers;
    char *memory = (char *)scratch + (-(uintptr_t)scratch & 63);
    for (ptrdiff_t l = 0; l < n; l++) {
        void *out = l == n - 1 ? y : memory + (l % 2 ? network->odd : 0);
        k->forward_row(&network->layers[l], out, x);
        x = out;
    }
    if (!network->d.output_is_activation)
        k->outputs[network->d.output].apply(y, 1, network->outputs);
}
