/* reader.h: a file of Network.save, checked. fastmlp/network/persistence.py says what is in it; whatever is refused
 * there is refused here.
 */
#ifndef FM_READER_H
#define FM_READER_H

#include "fastmlp.h"

typedef struct fm_description {
    ptrdiff_t n_layers; /* of weights: one less than sizes */
    ptrdiff_t *sizes;   /* n_layers + 1; activations[l] for l < n_layers - 1: rows of the table of activations */
    int *activations;
    int output_is_activation, output; /* a row of the table of activations, or of outputs */
    int element_size, batch_norm, residual;
} fm_description;

#define FM_MOST_DIMENSIONS 4

/* An array of the file. */
typedef struct fm_tensor {
    const char *name, *type; /* in the header; name_length bytes */
    size_t name_length, type_length;
    uint64_t shape[FM_MOST_DIMENSIONS], begin, end; /* bytes from the header's end */
    int n_dimensions, used;
} fm_tensor;

typedef struct fm_reader {
    void *file; /* FILE */
    char *header;
    char *model; /* the description, as text */
    size_t model_length;
    uint64_t header_length, data_length;
    fm_tensor *tensors; /* by name */
    size_t n_tensors;
    fm_description description;
    char reason[256];
} fm_reader;

/* fm_reader_open: read and check all but the arrays' numbers. Returns 0 and sets `reason` if the file is not good.
 * k: names of activations and outputs, and element_size, which must be the file's. */
int fm_reader_open(fm_reader *reader, const char *path, const fm_kernels *k);

/* fm_reader_array: read a list's array of a layer, such as coefs.0; its numbers must be finite */
int fm_reader_array(fm_reader *reader, const char *list, ptrdiff_t layer, ptrdiff_t n, void *to);

/* fm_reader_close: free what open allocated */
void fm_reader_close(fm_reader *reader);

int fm_reader_fail(fm_reader *reader, const char *format, ...);
#endif
