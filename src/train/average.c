/* Samples of a run's weights, summed by the host: the same on every backend. */
#include "train/average.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/average.h"
#include "base/sgd.h"

/* ---- when ---- */

NitiStatus niti_averaging_read(NitiAveraging *out, const NitiYaml *mapping) {
  static const char *const keys[] = {"from", "every", NULL}, *const positions[] = {"epoch", "step", "at", NULL},
                           *const periods[] = {"epoch", "step", NULL};
  NitiYaml *node;
  char found[NITI_YAML_FOUND_MAX];
  *out = (NitiAveraging){.every = {NITI_POSITION_EPOCH, 0}};
  if (niti_yaml_is_word(mapping, "none")) return NITI_OK;
  if (mapping->kind != NITI_YAML_MAPPING)
    return niti_yaml_fail(mapping, "average: expected none or a mapping, found %s", niti_yaml_found(found, mapping));
  NITI_TRY(niti_yaml_want_keys(mapping, "average", keys));
  NITI_TRY(niti_yaml_want(&node, mapping, "average", "from"));
  NITI_TRY(niti_yaml_want_mapping(node, "average: from"));
  NITI_TRY(niti_yaml_want_keys(node, "average: from", positions));
  NITI_TRY(niti_position_read(&out->from, node, "average: from"));
  out->every = (NitiPosition){NITI_POSITION_EPOCH, 1};
  node = niti_yaml_get(mapping, "every");
  if (!node) return NITI_OK;
  NITI_TRY(niti_yaml_want_mapping(node, "average: every"));
  NITI_TRY(niti_yaml_want_keys(node, "average: every", periods));
  NITI_TRY(niti_position_read(&out->every, node, "average: every"));
  return out->every.value > 0 ? NITI_OK : niti_yaml_fail(node, "average: every: 0 (expected at least 1)");
}

void niti_averaging_write(NitiYamlDocument *document, NitiYaml *root, const NitiAveraging *a) {
  NitiYaml *mapping = niti_yaml_mapping(document), *from = niti_yaml_mapping(document), *every = niti_yaml_mapping(document);
  if (!niti_averaging_on(a)) return;
  niti_position_put(document, from, a->from);
  niti_position_put(document, every, a->every);
  niti_yaml_put(document, mapping, "from", from);
  niti_yaml_put(document, mapping, "every", every);
  niti_yaml_put(document, root, "average", mapping);
}

NitiStatus niti_averaging_place(NitiAveraging *a, int64_t steps_per_epoch, int64_t steps) {
  char from[NITI_POSITION_MAX], every[NITI_POSITION_MAX];
  if (!niti_averaging_on(a)) return NITI_OK;
  a->first = niti_position_step(a->from, steps_per_epoch, steps);
  a->period = niti_position_step(a->every, steps_per_epoch, steps);
  const int64_t samples = niti_averaging_samples(a, steps);
  if (samples > 0 && samples <= NITI_AVERAGE_SAMPLES_MAX) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT,
                   "average: %" PRId64 " samples from %s (step %" PRId64 ") on in this run of %" PRId64
                   " steps, one every %s (%" PRId64 " steps) (expected 1 to %d)",
                   samples, niti_position_text(from, a->from), a->first, steps, niti_position_text(every, a->every), a->period,
                   NITI_AVERAGE_SAMPLES_MAX);
}

bool niti_averaging_due(const NitiAveraging *a, int64_t step) {
  return niti_averaging_on(a) && step > a->first && step % a->period == 0;
}

int64_t niti_averaging_samples(const NitiAveraging *a, int64_t step) {
  return step > a->first ? step / a->period - a->first / a->period : 0;
}

/* ---- the sums ---- */

/* Of one weight tensor. */
typedef struct Sum {
  NitiWeight weight;
  int32_t number, source; /* of the weight in the network, and of the tensor of 16 bits that is summed */
  char name[NITI_TENSOR_NAME_MAX + 16];
  int64_t *sums; /* [weight.count] */
  int32_t exponent;
} Sum;

struct NitiAverage {
  Sum *sums;
  int32_t count;
  int16_t *room; /* of the largest tensor */
};

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for the average of a run's weights"); }

/* The tensor of 16 bits behind a weight that is trained; NITI_NONE: it is not. */
static int32_t source_of(const NitiProgram *p, int32_t weight) {
  int32_t source = NITI_NONE;
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (p->tensors[t].role != NITI_ROLE_STATE || p->tensors[t].weight != weight) continue;
    if (p->tensors[t].initial == NITI_INITIAL_MASTER) return t;
    if (p->tensors[weight].dtype == NITI_DTYPE_S16) source = weight; /* its velocity */
  }
  return source;
}

static NitiStatus add_weight(NitiAverage *a, const NitiNetwork *net, int32_t i) {
  const int32_t source = source_of(net->program, net->weights[i]);
  if (source == NITI_NONE) return NITI_OK;
  Sum *s = &a->sums[a->count++];
  *s = (Sum){.weight = niti_network_weight(net, i), .number = i, .source = source};
  (void)snprintf(s->name, sizeof s->name, "%s.average", s->weight.name);
  s->sums = calloc(s->weight.count, sizeof *s->sums);
  return s->sums ? NITI_OK : out_of_memory();
}

static NitiStatus open_all(NitiAverage *a, const NitiNetwork *net) {
  size_t largest = 1;
  a->sums = calloc((size_t)net->weight_count + 1, sizeof *a->sums);
  if (!a->sums) return out_of_memory();
  for (int32_t i = 0; i < net->weight_count; ++i) NITI_TRY(add_weight(a, net, i));
  for (int32_t k = 0; k < a->count; ++k) largest = a->sums[k].weight.count > largest ? a->sums[k].weight.count : largest;
  a->room = malloc(largest * sizeof *a->room);
  return a->room ? NITI_OK : out_of_memory();
}

NitiStatus niti_average_open(NitiAverage **out, const NitiNetwork *net) {
  *out = NULL;
  NitiAverage *a = calloc(1, sizeof *a);
  if (!a) return out_of_memory();
  const NitiStatus status = open_all(a, net);
  if (status == NITI_OK)
    *out = a;
  else
    niti_average_close(a);
  return status;
}

void niti_average_close(NitiAverage *a) {
  if (!a) return;
  for (int32_t k = 0; k < a->count; ++k) free(a->sums[k].sums);
  free(a->sums);
  free(a->room);
  free(a);
}

NitiStatus niti_average_sample(NitiAverage *a, int64_t *samples, NitiNetwork *net) {
  for (int32_t k = 0; k < a->count; ++k) {
    Sum *s = &a->sums[k];
    int32_t exponent = 0;
    NITI_TRY(niti_executable_read(net->main, s->source, 0, a->room, &exponent));
    niti_average_add(s->sums, &s->exponent, *samples, a->room, exponent, s->weight.count);
  }
  ++*samples;
  return net->backend->ops->synchronise(net->backend); /* after a failure nothing that was read is valid */
}

/* Operands of int8 take the rounding of the mean. */
static NitiStatus set_weight(NitiNetwork *net, const Sum *s, const int16_t *mean, int32_t exponent) {
  if (s->weight.dtype == NITI_DTYPE_S16) return niti_network_set_weight(net, s->number, mean, exponent);
  int8_t *operand = malloc(s->weight.count);
  if (!operand) return out_of_memory();
  for (size_t i = 0; i < s->weight.count; ++i) operand[i] = niti_sgd_operand(mean[i]);
  const NitiStatus status = niti_network_set_weight(net, s->number, operand, exponent + NITI_SGD_OPERAND_SHIFT);
  free(operand);
  return status;
}

NitiStatus niti_average_apply(const NitiAverage *a, int64_t samples, NitiNetwork *net) {
  for (int32_t k = 0; k < a->count; ++k) {
    const Sum *s = &a->sums[k];
    int32_t exponent = 0;
    niti_average_take(a->room, &exponent, s->sums, s->exponent, samples, s->weight.count);
    NITI_TRY(set_weight(net, s, a->room, exponent));
  }
  return NITI_OK;
}

/* ---- in a checkpoint: int32, so that the hash excludes them ---- */

static int dims_of(uint32_t dims[NITI_DIMS_MAX], const Sum *s) {
  for (int d = 0; d < s->weight.ndim; ++d) dims[d] = s->weight.dims[d];
  dims[s->weight.ndim] = 2;
  return s->weight.ndim + 1;
}

NitiStatus niti_average_save(const NitiAverage *a, int64_t samples, NitiCheckpoint *checkpoint) {
  for (int32_t k = 0; samples > 0 && k < a->count; ++k) {
    const Sum *s = &a->sums[k];
    uint32_t dims[NITI_DIMS_MAX];
    const int ndim = dims_of(dims, s);
    int32_t *halves = malloc(2 * s->weight.count * sizeof *halves);
    if (!halves) return out_of_memory();
    for (size_t i = 0; i < s->weight.count; ++i) {
      halves[2 * i] = (int32_t)(uint32_t)((uint64_t)s->sums[i] & UINT32_MAX);
      halves[2 * i + 1] = (int32_t)(s->sums[i] >> 32);
    }
    const NitiStatus status = niti_checkpoint_add(checkpoint, s->name, NITI_I32, ndim, dims, s->exponent, halves);
    if (status == NITI_OK)
      checkpoint->tensors[checkpoint->tensor_count - 1].owned = true;
    else
      free(halves);
    NITI_TRY(status);
  }
  return NITI_OK;
}

static NitiStatus restore_sum(Sum *s, int64_t samples, const NitiCheckpoint *checkpoint) {
  const char *source = niti_checkpoint_source(checkpoint);
  const NitiCheckpointTensor *t = niti_checkpoint_find(checkpoint, s->name);
  const int64_t most = niti_average_most(samples);
  uint32_t dims[NITI_DIMS_MAX];
  const int ndim = dims_of(dims, s);
  bool same = t && t->dtype == NITI_I32 && t->ndim == ndim;
  for (int d = 0; same && d < ndim; ++d) same = t->dims[d] == dims[d];
  if (!same) return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing or not of the average's shape", source, s->name);
  const int32_t *halves = t->data;
  s->exponent = t->exponent;
  for (size_t i = 0; i < s->weight.count; ++i) {
    s->sums[i] = (int64_t)halves[2 * i + 1] * ((int64_t)1 << 32) + (int64_t)(uint32_t)halves[2 * i];
    if (s->sums[i] < -most || s->sums[i] > most)
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: tensor '%.200s': element %zu is %" PRId64 " (expected at most %" PRId64 ", of %" PRId64 " samples)",
                       source, s->name, i, s->sums[i], most, samples);
  }
  return NITI_OK;
}

NitiStatus niti_average_restore(NitiAverage *a, int64_t samples, int64_t expected, const NitiCheckpoint *checkpoint) {
  if (samples != expected)
    return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: 'average_samples' is %" PRId64 " (expected %" PRId64 " at this step)",
                     niti_checkpoint_source(checkpoint), samples, expected);
  for (int32_t k = 0; samples > 0 && k < a->count; ++k) NITI_TRY(restore_sum(&a->sums[k], samples, checkpoint));
  return NITI_OK;
}

bool niti_average_has(const NitiAverage *a, const char *name) {
  for (int32_t k = 0; a && k < a->count; ++k) {
    if (strcmp(a->sums[k].name, name) == 0) return true;
  }
  return false;
}
