/* reader.c: a safetensors file with a network's description as JSON in its metadata. Nothing in the file is believed:
 * every length is compared with the file's before memory is taken for it.
 */
#include "reader.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef _WIN32
#define stat _stat64
#endif
#ifndef S_ISREG
#define S_ISREG(mode) (((mode) & S_IFMT) == S_IFREG)
#endif

#define MOST_HEADER 100000000 /* bytes: the limit of the format */
#define MOST_LAYERS 100000
#define MOST_COUNT ((uint64_t)1 << 62)

int fm_reader_fail(fm_reader *reader, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->reason, sizeof(reader->reason), format, arguments);
    va_end(arguments);
    for (char *c = reader->reason; *c; c++) /* names come from the file */
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?';
    return 0;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------
 */

typedef struct text {
    char *at, *end;
    fm_reader *reader;
    const char *where; /* for messages */
} text;

static int bad_json(text *t) { return fm_reader_fail(t->reader, "%s is not valid", t->where); }

static void skip_space(text *t) {
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t' || *t->at == '\n' || *t->at == '\r'))
        t->at++;
}

static int next_is(text *t, char c) {
    skip_space(t);
    if (t->at == t->end || *t->at != c)
        return 0;
    t->at++;
    return 1;
}

static int hex_digits(const char *at, unsigned *value) {
    *value = 0;
    for (int i = 0; i < 4; i++) {
        const char c = at[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return 0;
        *value = *value * 16 + (unsigned)digit;
    }
    return 1;
}

static char *put_utf8(char *to, unsigned c) {
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xC0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *to++ = (char)(0xE0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3F));
        *to++ = (char)(0x80 | (c & 0x3F));
    } else {
        *to++ = (char)(0xF0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3F));
        *to++ = (char)(0x80 | (c >> 6 & 0x3F));
        *to++ = (char)(0x80 | (c & 0x3F));
    }
    return to;
}

/* Whether the text is UTF-8: no overlong form, no surrogate, nothing beyond U+10FFFF. */
static int is_utf8(const char *at, const char *end) {
    const unsigned char *c = (const unsigned char *)at, *last = (const unsigned char *)end;
    while (c < last) {
        const int more = *c < 0x80                 ? 0
                         : *c >= 0xC2 && *c < 0xE0 ? 1
                         : (*c & 0xF0) == 0xE0     ? 2
                         : *c >= 0xF0 && *c < 0xF5 ? 3
                                                   : -1;
        if (more < 0 || last - c <= more)
            return 0;
        for (int i = 1; i <= more; i++)
            if ((c[i] & 0xC0) != 0x80)
                return 0;
        if ((*c == 0xE0 && c[1] < 0xA0) || (*c == 0xED && c[1] > 0x9F) || (*c == 0xF0 && c[1] < 0x90) ||
            (*c == 0xF4 && c[1] > 0x8F))
            return 0;
        c += more + 1;
    }
    return 1;
}

/* A string, decoded in its place, where it takes no more room than before. */
static int string(text *t, char **value, size_t *length) {
    if (!next_is(t, '"'))
        return bad_json(t);
    char *to = *value = t->at;
    for (; t->at < t->end && *t->at != '"'; t->at++) {
        if ((unsigned char)*t->at < ' ')
            return bad_json(t);
        if (*t->at != '\\') {
            *to++ = *t->at;
            continue;
        }
        if (++t->at == t->end)
            return bad_json(t);
        static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        const char *found = *t->at ? strchr(names, *t->at) : NULL;
        unsigned c, low;
        if (found) {
            *to++ = meanings[found - names];
            continue;
        }
        if (*t->at != 'u' || t->end - t->at < 5 || !hex_digits(t->at + 1, &c) || (c >= 0xDC00 && c < 0xE000))
            return bad_json(t);
        t->at += 4;
        if (c >= 0xD800 && c < 0xDC00) { /* the first half of a pair */
            if (t->end - t->at < 7 || t->at[1] != '\\' || t->at[2] != 'u' || !hex_digits(t->at + 3, &low) ||
                low < 0xDC00 || low >= 0xE000)
                return bad_json(t);
            t->at += 6;
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        }
        to = put_utf8(to, c);
    }
    if (t->at == t->end)
        return bad_json(t);
    t->at++;
    *length = (size_t)(to - *value);
    return 1;
}

static int equals(const char *value, size_t length, const char *word) {
    return length == strlen(word) && memcmp(value, word, length) == 0;
}

/* An integer from 0 to 2^62. */
static int count(text *t, uint64_t *value) {
    skip_space(t);
    const char *first = t->at;
    *value = 0;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        if (*value > MOST_COUNT / 10)
            return bad_json(t);
        *value = *value * 10 + (uint64_t)(*t->at - '0');
    }
    if (t->at == first || (*first == '0' && t->at - first > 1) || *value > MOST_COUNT)
        return bad_json(t);
    return t->at < t->end && strchr(".eE", *t->at) && *t->at ? bad_json(t) : 1;
}

static int flag(text *t, int *value) {
    skip_space(t);
    const size_t left = (size_t)(t->end - t->at);
    *value = left >= 4 && memcmp(t->at, "true", 4) == 0;
    if (!*value && !(left >= 5 && memcmp(t->at, "false", 5) == 0))
        return bad_json(t);
    t->at += *value ? 4 : 5;
    return 1;
}

/* The next field's name of an object, or 0 at its end, or -1; first: whether none was taken yet. */
static int field(text *t, int first, char **name, size_t *length) {
    if (next_is(t, '}'))
        return 0;
    if (!first && !next_is(t, ','))
        return bad_json(t), -1;
    if (!string(t, name, length))
        return -1;
    return next_is(t, ':') ? 1 : (bad_json(t), -1);
}

/* Whether another element of a list follows: 0 at its end, or -1. */
static int element(text *t, int first) {
    if (next_is(t, ']'))
        return 0;
    return first || next_is(t, ',') ? 1 : (bad_json(t), -1);
}

static int at_end(text *t) {
    skip_space(t);
    return t->at == t->end ? 1 : bad_json(t);
}

/* The number of a name in a list of them, each of which may be taken once; -1 without an error message. */
static int take(const char *const *names, int n, const char *name, size_t length, unsigned *taken) {
    for (int i = 0; i < n; i++)
        if (equals(name, length, names[i])) {
            if (*taken & 1u << i)
                return -1;
            *taken |= 1u << i;
            return i;
        }
    return -1;
}

/* ---- The header ------------------------------------------------------------------------------------------------- */

static int read_metadata(text *t) {
    static const char *const names[] = {"fastmlp_format", "fastmlp_version", "model"};
    fm_reader *reader = t->reader;
    unsigned taken = 0;
    char *name, *value;
    size_t length, n;
    int more, others = 0;
    if (!next_is(t, '{'))
        return bad_json(t);
    while ((more = field(t, taken == 0 && !others, &name, &length)) > 0) {
        const int which = take(names, 3, name, length, &taken);
        others |= which < 0; /* of another program, or twice */
        if (!string(t, &value, &n))
            return 0;
        if (which == 0 && !equals(value, n, "1"))
            return fm_reader_fail(reader, "it has format '%.*s'; this version reads format 1", n > 20 ? 20 : (int)n,
                                  value);
        if (which == 2) {
            reader->model = value;
            value[n] = 0; /* in place of its closing quote, or before */
            reader->model_length = n;
        }
    }
    if (more == 0 && !(taken & 1))
        return fm_reader_fail(reader, "it was not written by fastmlp");
    if (more == 0 && (taken != 7 || others))
        return fm_reader_fail(reader, "its metadata must be fastmlp_format, fastmlp_version and model, once each");
    return more == 0;
}

static int read_tensor(text *t, fm_tensor *tensor) {
    static const char *const names[] = {"dtype", "shape", "data_offsets"};
    unsigned taken = 0;
    char *name, *type;
    size_t length;
    uint64_t numbers[FM_MOST_DIMENSIONS] = {0};
    int more, n, another;
    if (!next_is(t, '{'))
        return bad_json(t);
    while ((more = field(t, taken == 0, &name, &length)) > 0) {
        const int which = take(names, 3, name, length, &taken);
        if (which < 0)
            return bad_json(t);
        if (which == 0) {
            if (!string(t, &type, &tensor->type_length))
                return 0;
            tensor->type = type;
            continue;
        }
        if (!next_is(t, '['))
            return bad_json(t);
        for (n = 0; (another = element(t, n == 0)) > 0; n++) {
            if (n == FM_MOST_DIMENSIONS)
                return fm_reader_fail(t->reader, "an array has more than %d dimensions", FM_MOST_DIMENSIONS);
            if (!count(t, &numbers[n]))
                return 0;
        }
        if (another < 0 || (which == 2 && n != 2))
            return bad_json(t);
        if (which == 2) {
            tensor->begin = numbers[0];
            tensor->end = numbers[1];
            continue;
        }
        tensor->n_dimensions = n;
        memcpy(tensor->shape, numbers, sizeof(numbers));
    }
    return more == 0 && taken == 7 ? 1 : bad_json(t);
}

static int by_name(const void *a_, const void *b_) {
    const fm_tensor *a = a_, *b = b_;
    const size_t n = a->name_length < b->name_length ? a->name_length : b->name_length;
    const int order = memcmp(a->name, b->name, n);
    return order ? order : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

static int by_place(const void *a_, const void *b_) {
    const fm_tensor *a = a_, *b = b_;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

/* Bytes of an element; the files of estimators have others than a network's. */
static int size_of_type(const char *type, size_t length) {
    static const char *const names[] = {"BOOL", "I8",  "U8",  "I16", "U16", "F16", "I32",
                                        "U32",  "F32", "I64", "U64", "F64", NULL};
    static const int sizes[] = {1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 0};
    int i = 0;
    while (names[i] && !equals(type, length, names[i]))
        i++;
    return sizes[i];
}

/* Arrays lie one after the other, from the header's end to the file's, and have the sizes of their shapes. */
static int check_places(fm_reader *reader) {
    uint64_t at = 0;
    qsort(reader->tensors, reader->n_tensors, sizeof(fm_tensor), by_place);
    for (size_t i = 0; i < reader->n_tensors; i++) {
        const fm_tensor *t = &reader->tensors[i];
        const int size = size_of_type(t->type, t->type_length);
        const uint64_t most = reader->data_length;
        uint64_t bytes = (uint64_t)size;
        for (int d = 0; d < t->n_dimensions; d++) {
            if (t->shape[d] != 0 && bytes > most / t->shape[d])
                return fm_reader_fail(reader, "its arrays are longer than the file");
            bytes *= t->shape[d];
        }
        if (size == 0)
            return fm_reader_fail(reader, "an array has the unknown type '%.*s'",
                                  (int)(t->type_length > 20 ? 20 : t->type_length), t->type);
        if (t->begin != at || t->end < t->begin || t->end - t->begin != bytes)
            return fm_reader_fail(reader, "its arrays do not lie one after the other");
        at = t->end;
    }
    return at == reader->data_length ? 1 : fm_reader_fail(reader, "its arrays do not fill the file");
}

static int read_header(fm_reader *reader) {
    text t = {reader->header, reader->header + reader->header_length, reader, "the header"};
    size_t room = 0, length;
    char *name;
    int more, first = 1, has_metadata = 0;
    if (!is_utf8(t.at, t.end) || t.at == t.end || *t.at != '{' || !next_is(&t, '{'))
        return fm_reader_fail(reader, "it is not a safetensors file");
    for (; (more = field(&t, first, &name, &length)) > 0; first = 0) {
        if (equals(name, length, "__metadata__")) {
            if (has_metadata++)
                return bad_json(&t);
            if (!read_metadata(&t))
                return 0;
            continue;
        }
        if (reader->n_tensors == room) {
            room = room ? 2 * room : 16;
            fm_tensor *tensors = realloc(reader->tensors, room * sizeof(fm_tensor));
            if (!tensors)
                return fm_reader_fail(reader, "there is not enough memory");
            reader->tensors = tensors;
        }
        fm_tensor *tensor = &reader->tensors[reader->n_tensors++];
        memset(tensor, 0, sizeof(*tensor));
        tensor->name = name;
        tensor->name_length = length;
        if (!read_tensor(&t, tensor))
            return 0;
    }
    if (more < 0 || !at_end(&t))
        return 0;
    if (!has_metadata)
        return fm_reader_fail(reader, "it was not written by fastmlp");
    if (reader->n_tensors == 0)
        return fm_reader_fail(reader, "it has no arrays");
    if (!check_places(reader))
        return 0;
    qsort(reader->tensors, reader->n_tensors, sizeof(fm_tensor), by_name);
    for (size_t i = 1; i < reader->n_tensors; i++)
        if (by_name(&reader->tensors[i - 1], &reader->tensors[i]) == 0)
            return fm_reader_fail(reader, "two arrays have the same name");
    return 1;
}

/* ---- The description -------------------------------------------------------------------------------------------- */

static int activation(const fm_kernels *k, const char *name, size_t length) {
    for (int i = 0; i < FM_N_ACTIVATIONS; i++)
        if (equals(name, length, k->activations[i].name))
            return i;
    return -1;
}

static int read_output(fm_description *d, const fm_kernels *k, const char *name, size_t length) {
    for (d->output = 0; d->output < FM_N_OUTPUTS; d->output++)
        if (equals(name, length, k->outputs[d->output].name))
            return 1;
    d->output_is_activation = 1;
    d->output = activation(k, name, length);
    return d->output >= 0;
}

/* Room for another number; 0: none. */
static int grow(void **array, size_t n, size_t size) {
    if (n > 8 && n & (n - 1))
        return 1;
    void *larger = n < 8 && n > 0 ? *array : realloc(*array, (n < 8 ? 8 : 2 * n) * size);
    if (larger)
        *array = larger;
    return larger != NULL;
}

static int read_network(text *t, const fm_kernels *k) {
    static const char *const names[] = {"layer_sizes", "activations", "out_activation", "dtype",
                                        "batch_norm",  "residual",    "embedding",      "n_members"};
    fm_reader *reader = t->reader;
    fm_description *d = &reader->description;
    ptrdiff_t n_sizes = 0, n_hidden = 0;
    unsigned taken = 0;
    char *name, *value;
    size_t length, n;
    uint64_t size;
    int more, another;
    if (!next_is(t, '{'))
        return bad_json(t);
    while ((more = field(t, taken == 0, &name, &length)) > 0) {
        const int which = take(names, 8, name, length, &taken);
        if (which >= 6)
            return fm_reader_fail(reader, "its network takes coded rows (embedding), which have no form in C");
        if (which < 0)
            return fm_reader_fail(reader, "its description has an unknown field, or one twice");
        if (which < 2 && !next_is(t, '['))
            return bad_json(t);
        if (which == 0) {
            for (; (another = element(t, n_sizes == 0)) > 0; d->sizes[n_sizes++] = (ptrdiff_t)size) {
                if (!count(t, &size))
                    return 0;
                if (size < 1 || n_sizes > MOST_LAYERS)
                    return fm_reader_fail(reader, "layer_sizes must be 2 to %d integers >= 1", MOST_LAYERS);
                if (!grow((void **)&d->sizes, (size_t)n_sizes, sizeof(*d->sizes)))
                    return fm_reader_fail(reader, "there is not enough memory");
            }
            if (another < 0)
                return 0;
        } else if (which == 1) {
            for (; (another = element(t, n_hidden == 0)) > 0; n_hidden++) {
                if (!string(t, &value, &n))
                    return 0;
                if (n_hidden > MOST_LAYERS || !grow((void **)&d->activations, (size_t)n_hidden, sizeof(int)))
                    return fm_reader_fail(reader, "it has too many activations");
                d->activations[n_hidden] = activation(k, value, n);
                if (d->activations[n_hidden] < 0)
                    return fm_reader_fail(reader, "it has the unknown activation '%.*s'", n > 40 ? 40 : (int)n, value);
            }
            if (another < 0)
                return 0;
        } else if (which == 2 || which == 3) {
            if (!string(t, &value, &n))
                return 0;
            if (which == 2 && !read_output(d, k, value, n))
                return fm_reader_fail(reader, "it has the unknown out_activation '%.*s'", n > 40 ? 40 : (int)n, value);
            if (which == 3)
                d->element_size = equals(value, n, "float32") ? 4 : equals(value, n, "float64") ? 8 : 0;
            if (which == 3 && !d->element_size)
                return fm_reader_fail(reader, "its dtype must be float32 or float64");
        } else if (!flag(t, which == 4 ? &d->batch_norm : &d->residual)) {
            return 0;
        }
    }
    if (more < 0)
        return 0;
    if (taken != 0x3F)
        return fm_reader_fail(reader, "its description lacks a field");
    if (n_sizes < 2)
        return fm_reader_fail(reader, "layer_sizes must be 2 to %d integers >= 1", MOST_LAYERS);
    if (n_hidden != n_sizes - 2)
        return fm_reader_fail(reader, "activations must name one for each hidden layer");
    d->n_layers = n_sizes - 1;
    if (d->element_size != k->element_size)
        return fm_reader_fail(reader, "its network has type %s, the program asks for %s",
                              d->element_size == 4 ? "float" : "double", d->element_size == 4 ? "double" : "float");
    return 1;
}

static int read_model(fm_reader *reader, const fm_kernels *k) {
    static const char *const names[] = {"class", "network"};
    text t = {reader->model, reader->model + reader->model_length, reader, "the model's description"};
    unsigned taken = 0;
    char *name, *value;
    size_t length, n;
    int more;
    if (!next_is(&t, '{'))
        return bad_json(&t);
    while ((more = field(&t, taken == 0, &name, &length)) > 0) {
        const int which = take(names, 2, name, length, &taken);
        if (which == 0) {
            if (!string(&t, &value, &n))
                return 0;
            if (!equals(value, n, "Network"))
                return fm_reader_fail(reader, "its class is '%.*s', not 'Network'; save the estimator's network_",
                                      n > 40 ? 40 : (int)n, value);
        } else if (which == 1) {
            if (!read_network(&t, k))
                return 0;
        } else {
            return fm_reader_fail(reader, "its class is not 'Network'; save the estimator's network_");
        }
    }
    if (more < 0 || !at_end(&t))
        return 0;
    return taken == 3 ? 1 : fm_reader_fail(reader, "its description lacks a field");
}

/* The array must be there, of the network's type and of this shape (rows = 0: a vector). */
static int require(fm_reader *reader, const char *list, ptrdiff_t layer, ptrdiff_t rows, ptrdiff_t columns,
                   fm_tensor **found) {
    char name[64];
    fm_tensor wanted = {0};
    wanted.name = name;
    wanted.name_length = (size_t)snprintf(name, sizeof(name), "%s.%lld", list, (long long)layer);
    fm_tensor *t = bsearch(&wanted, reader->tensors, reader->n_tensors, sizeof(fm_tensor), by_name);
    if (!t)
        return fm_reader_fail(reader, "tensor '%s' is missing", name);
    if (!equals(t->type, t->type_length, reader->description.element_size == 4 ? "F32" : "F64"))
        return fm_reader_fail(reader, "tensor '%s' is of another type than the network", name);
    if (t->n_dimensions != (rows ? 2 : 1) || t->shape[0] != (uint64_t)(rows ? rows : columns) ||
        (rows && t->shape[1] != (uint64_t)columns))
        return fm_reader_fail(reader, "tensor '%s' has another shape than layer_sizes say", name);
    t->used = 1;
    *found = t;
    return 1;
}

static int check_tensors(fm_reader *reader) {
    static const char *const lists[] = {"intercepts", "scales", "means", "variances"};
    const fm_description *d = &reader->description;
    fm_tensor *t;
    size_t n_used = 0;
    for (ptrdiff_t l = 0; l < d->n_layers; l++) {
        if (!require(reader, "coefs", l, d->sizes[l], d->sizes[l + 1], &t))
            return 0;
        for (int i = 0; i < (d->batch_norm && l < d->n_layers - 1 ? 4 : 1); i++)
            if (!require(reader, lists[i], l, 0, d->sizes[l + 1], &t))
                return 0;
    }
    for (size_t i = 0; i < reader->n_tensors; i++)
        n_used += (size_t)reader->tensors[i].used;
    return n_used == reader->n_tensors ? 1 : fm_reader_fail(reader, "it has arrays that do not belong to the network");
}

/* ---- The file --------------------------------------------------------------------------------------------------- */

static int seek_to(FILE *file, uint64_t at) {
    while (at > LONG_MAX) { /* where long has 32 bits */
        if (fseek(file, LONG_MAX, SEEK_CUR))
            return 0;
        at -= LONG_MAX;
    }
    return fseek(file, (long)at, SEEK_CUR) == 0;
}

int fm_reader_open(fm_reader *reader, const char *path, const fm_kernels *k) {
    unsigned char first[8];
    struct stat status;
    memset(reader, 0, sizeof(*reader));
    if (stat(path, &status))
        return fm_reader_fail(reader, "there is no such file");
    if (!S_ISREG(status.st_mode)) /* opening a pipe would block */
        return fm_reader_fail(reader, "it is not a regular file");
    FILE *file = reader->file = fopen(path, "rb");
    if (!file)
        return fm_reader_fail(reader, "the system does not open it");
    if (status.st_size < 9 || fread(first, 1, 8, file) != 8)
        return fm_reader_fail(reader, status.st_size ? "it is not a safetensors file" : "it is empty");
    for (int i = 7; i >= 0; i--)
        reader->header_length = reader->header_length << 8 | first[i];
    const uint64_t rest = (uint64_t)status.st_size - 8;
    if (reader->header_length > rest || reader->header_length > MOST_HEADER)
        return fm_reader_fail(reader, "it is not a safetensors file");
    reader->data_length = rest - reader->header_length;
    reader->header = malloc((size_t)reader->header_length + 1);
    if (!reader->header)
        return fm_reader_fail(reader, "there is not enough memory");
    if (fread(reader->header, 1, (size_t)reader->header_length, file) != reader->header_length)
        return fm_reader_fail(reader, "it could not be read");
    reader->header[reader->header_length] = 0;
    return read_header(reader) && read_model(reader, k) && check_tensors(reader);
}

static int all_finite(const void *numbers, size_t n, int size) {
    uint64_t exponent;
    for (size_t i = 0; i < n; i++) {
        if (size == 4) {
            uint32_t bits;
            memcpy(&bits, (const char *)numbers + 4 * i, 4);
            exponent = bits & 0x7F800000u;
            if (exponent == 0x7F800000u)
                return 0;
        } else {
            memcpy(&exponent, (const char *)numbers + 8 * i, 8);
            if ((exponent & 0x7FF0000000000000u) == 0x7FF0000000000000u)
                return 0;
        }
    }
    return 1;
}

int fm_reader_array(fm_reader *reader, const char *list, ptrdiff_t layer, ptrdiff_t n, void *to) {
    char name[64];
    fm_tensor wanted = {0}, *t;
    const int size = reader->description.element_size;
    wanted.name = name;
    wanted.name_length = (size_t)snprintf(name, sizeof(name), "%s.%lld", list, (long long)layer);
    t = bsearch(&wanted, reader->tensors, reader->n_tensors, sizeof(fm_tensor), by_name);
    if (!t || t->end - t->begin != (uint64_t)n * (uint64_t)size)
        return fm_reader_fail(reader, "tensor '%s' is missing", name);
    rewind(reader->file);
    if (!seek_to(reader->file, 8 + reader->header_length + t->begin) ||
        fread(to, (size_t)size, (size_t)n, reader->file) != (size_t)n)
        return fm_reader_fail(reader, "it could not be read");
    return all_finite(to, (size_t)n, size) ? 1
                                           : fm_reader_fail(reader, "tensor '%s' must hold finite numbers only", name);
}

void fm_reader_close(fm_reader *reader) {
    if (reader->file)
        fclose(reader->file);
    free(reader->header);
    free(reader->tensors);
    free(reader->description.sizes);
    free(reader->description.activations);
}
