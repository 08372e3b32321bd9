/* A network on a backend: its compiled programs, its weights, and whole steps. */
#ifndef NITI_MODEL_NETWORK_H
#define NITI_MODEL_NETWORK_H

#include "backend/backend.h"
#include "model/lower.h"

typedef struct NitiNetwork {
  NitiBackend *backend;     /* borrowed */
  NitiExecutable *training; /* NULL: inference only */
  NitiExecutable *evaluation;
  NitiExecutable *main;       /* which of the two owns the weights */
  const NitiProgram *program; /* main's */
  int32_t *weights;           /* tensors of main's program, in the order of its layers */
  int32_t weight_count;
  int32_t table, metrics, logits; /* tensors of main's program; logits: of the evaluation's */
  int32_t forward_end;            /* the evaluation's first operation after forward */
  size_t memory_bytes;            /* everything a step needs on the backend */
} NitiNetwork;

/* One weight tensor, in host memory. */
typedef struct NitiWeight {
  const char *layer, *name; /* its layer's name, and the tensor's: LAYER.weight */
  NitiDtype dtype;          /* s8, s16 or s64 */
  int ndim;
  uint32_t dims[4]; /* [out][KH][KW][in] or [out][in] */
  size_t count;
} NitiWeight;

/* Lowers and compiles the description, for training and evaluation or (options->training false) for evaluation alone. Weights are
 * zero until init or set. The description may be closed afterwards. The message of NITI_ERROR_MEMORY names the batch that
 * would fit, if the backend knows. */
NitiStatus niti_network_open(NitiNetwork **out, const NitiDescription *description, NitiBackend *backend,
                             const NitiLowerOptions *options);
void niti_network_close(NitiNetwork *net);
/* The table that turns pixels into the network's input: the recipe's mean and std, in millionths, one per channel. Both NULL: the
 * bytes are mantissas already, at NITI_VALUE_EXPONENT. */
NitiStatus niti_network_set_input(NitiNetwork *net, const int32_t *mean, const int32_t *std);

/* A whole training step; forward and the loss's metrics; forward only. Work may still be queued on return. */
NitiStatus niti_network_train(NitiNetwork *net, const NitiBindings *bindings);
NitiStatus niti_network_evaluate(NitiNetwork *net, const NitiBindings *bindings);
NitiStatus niti_network_predict(NitiNetwork *net, const NitiBindings *bindings);
/* Forward in training mode: running statistics move, nothing else does. */
NitiStatus niti_network_move_statistics(NitiNetwork *net, const NitiBindings *bindings);
/* After evaluate or predict: logits [n][classes] and their exponent. Waits. */
NitiStatus niti_network_read_logits(NitiNetwork *net, int32_t n, int8_t *logits, int32_t *exponent);
/* The sums over the images trained and evaluated since they were last written. Reading waits. */
NitiStatus niti_network_read_metrics(NitiNetwork *net, NitiMetrics *out);
void niti_network_write_metrics(NitiNetwork *net, const NitiMetrics *metrics);

/* Weights, numbered 0 .. weight_count - 1 in the order of their layers. */
NitiWeight niti_network_weight(const NitiNetwork *net, int32_t i);
void niti_network_get_weight(const NitiNetwork *net, int32_t i, void *mantissas, int32_t *exponent);
/* Also sets the state that holds the same weight more finely, if the optimiser has one. */
NitiStatus niti_network_set_weight(NitiNetwork *net, int32_t i, const void *mantissas, int32_t exponent);
NitiStatus niti_network_weight_stats(const NitiNetwork *net, int32_t i, NitiTensorStats *out); /* s8 only */
/* Initial weights as docs/arithmetic.md defines them; one tensor, or all. */
NitiStatus niti_network_init_weight(NitiNetwork *net, int32_t i, uint64_t seed);
NitiStatus niti_network_init(NitiNetwork *net, uint64_t seed);

#endif
