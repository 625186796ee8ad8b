/* fastmlp_predict.h: predictions of a network that Network.save wrote, from C and C++. Link with the static library
 * fastmlp_predict; pkg-config and CMake know it as fastmlp.
 *
 *     char message[FASTMLP_MESSAGE];
 *     fastmlp_network *network = fastmlp_open("model.safetensors", sizeof(float), message, sizeof(message));
 *     if (!network)
 *         return fprintf(stderr, "%s\n", message), 1;
 *     float *x = ..., *y = ...;                            // fastmlp_inputs and fastmlp_outputs numbers
 *     void *scratch = malloc(fastmlp_scratch(network));
 *     fastmlp_predict_row(network, x, y, scratch);         // y has the bits of Network.forward
 *     fastmlp_close(network);
 *
 * Threads may share a network, each with a scratch of its own. Only open allocates memory, and only close frees it. The
 * kernels are those of the running CPU, or of the instruction set that the environment variable FASTMLP_ISA names.
 */
#ifndef FASTMLP_PREDICT_H
#define FASTMLP_PREDICT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FASTMLP_MESSAGE 512 /* bytes that hold any message but for a long path, which is cut */

typedef struct fastmlp_network fastmlp_network;

/* open: the network in a file, or NULL, and why in `message`, a text of less than message_size bytes
 * element_size: sizeof(float) or sizeof(double): the type of the program's x and y. A network of the other type is an
 * error, and so is whatever Network.load refuses: the file is checked to the last byte. Networks of coded rows are not
 * for this function. message may be NULL if message_size is 0. */
fastmlp_network *fastmlp_open(const char *path, size_t element_size, char *message, size_t message_size);

/* close: free the network; NULL is ignored */
void fastmlp_close(fastmlp_network *network);

/* inputs, outputs: numbers in x and in y */
size_t fastmlp_inputs(const fastmlp_network *network);
size_t fastmlp_outputs(const fastmlp_network *network);

/* scratch: bytes of working memory that predict_row needs; at least 1 */
size_t fastmlp_scratch(const fastmlp_network *network);

/* predict_row: the output y for the row x. x, y and scratch do not overlap; x and y are aligned to their type, scratch
 * may begin anywhere. Values are not checked: NaN propagates. */
void fastmlp_predict_row(const fastmlp_network *network, const void *x, void *y, void *scratch);

#ifdef __cplusplus
}
#endif
#endif
