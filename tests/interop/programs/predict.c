/* predict.c: for each path on the command line, after the element's size and a number of rows: opens the file and
 * predicts as many rows, which it reads from the standard input; prints the outputs, or the message. C and C++.
 */
#include <fastmlp_predict.h>

#include <stdio.h>
#include <stdlib.h>

int main(int n_arguments, char **arguments) {
    size_t size = (size_t)atoi(arguments[1]);
    long n_rows = atol(arguments[2]);
    for (int i = 3; i < n_arguments; i++) {
        char message[FASTMLP_MESSAGE];
        fastmlp_network *network = fastmlp_open(arguments[i], size, message, sizeof(message));
        if (!network) {
            printf("%s\n", message);
            continue;
        }
        char *x = (char *)malloc(fastmlp_inputs(network) * size);
        char *y = (char *)malloc(fastmlp_outputs(network) * size);
        void *scratch = malloc(fastmlp_scratch(network));
        for (long row = 0; row < n_rows; row++) {
            if (fread(x, size, fastmlp_inputs(network), stdin) != fastmlp_inputs(network))
                return 1;
            fastmlp_predict_row(network, x, y, scratch);
            fwrite(y, size, fastmlp_outputs(network), stdout);
        }
        if (n_rows == 0)
            printf("good\n");
        free(x);
        free(y);
        free(scratch);
        fastmlp_close(network);
    }
    return 0;
}
