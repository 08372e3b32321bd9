/* Lowers and compiles a network for a backend, runs its steps, and accesses the weights that its two programs share. */
#include "model/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/input.h"
#include "base/norm.h"
#include "base/sgd.h"
#include "program/early.h"

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a network"); }

/* ---- opening ---- */

static NitiLowerOptions evaluating(const NitiLowerOptions *options) {
  NitiLowerOptions o = *options;
  o.training = false;
  return o;
}

/* As a network runs it: updates come as early as they may, so that gradients take less memory. */
static NitiStatus lower(NitiProgram **out, const NitiDescription *description, const NitiBackend *backend,
                        const NitiLowerOptions *options) {
  NITI_TRY(niti_lower(out, description, options));
  const NitiStatus status = niti_update_early(*out, backend->ops->update_bytes);
  if (status == NITI_OK) return NITI_OK;
  niti_program_close(*out);
  *out = NULL;
  return status;
}

static NitiStatus compile(NitiExecutable **out, const NitiDescription *description, NitiBackend *backend,
                          const NitiLowerOptions *options, NitiExecutable *shared) {
  NitiProgram *program = NULL;
  const NitiCompileOptions compile_options = {.shared = shared};
  NITI_TRY(lower(&program, description, backend, options));
  const NitiStatus status = niti_backend_compile(out, backend, program, &compile_options);
  niti_program_close(program);
  return status;
}

static NitiStatus compile_all(NitiNetwork *net, const NitiDescription *description, const NitiLowerOptions *options) {
  const NitiLowerOptions evaluation = evaluating(options);
  if (options->training) NITI_TRY(compile(&net->training, description, net->backend, options, NULL));
  NITI_TRY(compile(&net->evaluation, description, net->backend, &evaluation, net->training));
  net->main = net->training ? net->training : net->evaluation;
  net->memory_bytes = niti_executable_bytes(net->evaluation);
  if (net->training) net->memory_bytes += niti_executable_bytes(net->training);
  return NITI_OK;
}

static NitiStatus find_tensors(NitiNetwork *net) {
  const NitiProgram *p = net->program = niti_executable_program(net->main);
  net->table = niti_program_find(p, NITI_TENSOR_TABLE);
  net->metrics = niti_program_find(p, NITI_TENSOR_METRICS);
  net->logits = niti_program_logits(niti_executable_program(net->evaluation));
  int32_t first;
  niti_program_phases(niti_executable_program(net->evaluation), NITI_PHASE_INPUT, NITI_PHASE_FORWARD, &first, &net->forward_end);
  net->weights = calloc((size_t)p->tensor_count, sizeof *net->weights);
  if (!net->weights) return out_of_memory();
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    if (p->tensors[t].role == NITI_ROLE_WEIGHT) net->weights[net->weight_count++] = t;
  }
  return NITI_OK;
}

/* Whether a batch would have fitted, leaving some memory for what a run needs beside its network. */
static bool fits(const NitiDescription *description, NitiBackend *backend, const NitiLowerOptions *options, int32_t batch,
                 size_t available) {
  NitiLowerOptions smaller = *options;
  NitiProgram *program = NULL;
  size_t bytes = SIZE_MAX;
  smaller.batch = batch;
  if (lower(&program, description, backend, &smaller) != NITI_OK) return false;
  const NitiStatus status = niti_backend_estimate(&bytes, backend, program, NULL);
  niti_program_close(program);
  return status == NITI_OK && bytes <= available - available / 32;
}

/* Adds the batch that would fit to the message that memory ran out, if the backend knows its free memory. Called after the
 * network's memory has been released. */
static NitiStatus suggest_batch(const NitiDescription *description, NitiBackend *backend, const NitiLowerOptions *options) {
  char why[512];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  const size_t bytes = backend->ops->free_bytes(backend);
  if (bytes == SIZE_MAX) return niti_fail(NITI_ERROR_MEMORY, "%s", why);
  int32_t good = 0, bad = options->batch;
  while (bad - good > 1) {
    const int32_t middle = good + (bad - good) / 2;
    if (fits(description, backend, options, middle, bytes)) {
      good = middle;
    } else {
      bad = middle;
    }
  }
  if (good == 0) return niti_fail(NITI_ERROR_MEMORY, "%s; model '%s' does not fit even with batch 1", why, description->name);
  return niti_fail(NITI_ERROR_MEMORY, "%s; of model '%s' a batch of %d would fit (asked for: %d)", why, description->name, good,
                   options->batch);
}

NitiStatus niti_network_open(NitiNetwork **out, const NitiDescription *description, NitiBackend *backend,
                             const NitiLowerOptions *options) {
  *out = NULL;
  NitiNetwork *net = calloc(1, sizeof *net);
  if (!net) return out_of_memory();
  net->backend = backend;
  NitiStatus status = compile_all(net, description, options);
  const bool ran_out = status == NITI_ERROR_MEMORY;
  if (status == NITI_OK) status = find_tensors(net);
  if (status != NITI_OK) {
    niti_network_close(net);
    return ran_out ? suggest_batch(description, backend, options) : status;
  }
  *out = net;
  return NITI_OK;
}

void niti_network_close(NitiNetwork *net) {
  if (!net) return;
  niti_executable_close(net->evaluation); /* it uses the memory of the training program */
  niti_executable_close(net->training);
  free(net->weights);
  free(net);
}

NitiStatus niti_network_set_input(NitiNetwork *net, const int32_t *mean, const int32_t *std) {
  const int32_t channels = (int32_t)net->program->tensors[net->table].dims[0];
  int8_t *table = malloc((size_t)channels * 256);
  int32_t exponent;
  if (!table) return out_of_memory();
  NitiStatus status = mean ? niti_input_table(table, &exponent, channels, mean, std) : NITI_OK;
  if (!mean) {
    exponent = NITI_VALUE_EXPONENT;
    for (int32_t i = 0; i < 256 * channels; ++i) table[i] = (int8_t)(i & 255);
  }
  if (status == NITI_OK) status = niti_executable_write(net->main, net->table, 0, table, &exponent);
  free(table);
  return status;
}

/* ---- running ---- */

static int32_t operations_of(const NitiExecutable *e) { return niti_executable_program(e)->operation_count; }

NitiStatus niti_network_train(NitiNetwork *net, const NitiBindings *bindings) {
  return niti_executable_run(net->training, 0, operations_of(net->training), bindings);
}

NitiStatus niti_network_evaluate(NitiNetwork *net, const NitiBindings *bindings) {
  return niti_executable_run(net->evaluation, 0, operations_of(net->evaluation), bindings);
}

NitiStatus niti_network_predict(NitiNetwork *net, const NitiBindings *bindings) {
  return niti_executable_run(net->evaluation, 0, net->forward_end, bindings);
}

NitiStatus niti_network_move_statistics(NitiNetwork *net, const NitiBindings *bindings) {
  int32_t first, end;
  niti_program_phases(net->program, NITI_PHASE_INPUT, NITI_PHASE_FORWARD, &first, &end);
  return niti_executable_run(net->training, first, end, bindings);
}

NitiStatus niti_network_read_logits(NitiNetwork *net, int32_t n, int8_t *logits, int32_t *exponent) {
  NITI_TRY(niti_executable_read(net->evaluation, net->logits, n, logits, exponent));
  return net->backend->ops->synchronise(net->backend); /* a failure would make what was read invalid */
}

NitiStatus niti_network_read_metrics(NitiNetwork *net, NitiMetrics *out) {
  NITI_TRY(niti_executable_read(net->main, net->metrics, 0, out, NULL));
  return net->backend->ops->synchronise(net->backend);
}

void niti_network_write_metrics(NitiNetwork *net, const NitiMetrics *metrics) {
  (void)niti_executable_write(net->main, net->metrics, 0, metrics, NULL); /* it has memory */
}

/* ---- weights ---- */

NitiWeight niti_network_weight(const NitiNetwork *net, int32_t i) {
  const NitiTensorDesc *t = &net->program->tensors[net->weights[i]];
  NitiWeight weight = {.layer = net->program->layers[t->layer],
                       .name = t->name,
                       .dtype = t->dtype,
                       .ndim = t->rank,
                       .count = niti_tensor_count(t, 0)};
  for (int d = 0; d < t->rank; ++d) weight.dims[d] = (uint32_t)t->dims[d];
  return weight;
}

void niti_network_get_weight(const NitiNetwork *net, int32_t i, void *mantissas, int32_t *exponent) {
  (void)niti_executable_read(net->main, net->weights[i], 0, mantissas, exponent); /* it has memory */
}

/* Sets a state from the weight that it holds more finely. */
static NitiStatus set_master(NitiNetwork *net, int32_t master, const int8_t *mantissas, int32_t exponent) {
  const NitiTensorDesc *t = &net->program->tensors[master];
  const size_t count = niti_tensor_count(t, 0);
  const int32_t finer = exponent - NITI_SGD_OPERAND_SHIFT;
  int16_t *values = malloc(count * sizeof *values);
  if (!values) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu weights", t->name, count);
  for (size_t k = 0; k < count; ++k) values[k] = (int16_t)(mantissas[k] * (1 << NITI_SGD_OPERAND_SHIFT));
  const NitiStatus status = niti_executable_write(net->main, master, 0, values, &finer);
  free(values);
  return status;
}

NitiStatus niti_network_set_weight(NitiNetwork *net, int32_t i, const void *mantissas, int32_t exponent) {
  NITI_TRY(niti_executable_write(net->main, net->weights[i], 0, mantissas, &exponent));
  for (int32_t t = 0; t < net->program->tensor_count; ++t) {
    const NitiTensorDesc *state = &net->program->tensors[t];
    if (state->initial == NITI_INITIAL_MASTER && state->weight == net->weights[i])
      NITI_TRY(set_master(net, t, mantissas, exponent));
  }
  return NITI_OK;
}

NitiStatus niti_network_weight_stats(const NitiNetwork *net, int32_t i, NitiTensorStats *out) {
  return niti_executable_stats(net->main, net->weights[i], out);
}

/* Fills mantissas of the tensor's dtype; returns their exponent. */
static int32_t fill_initial(void *mantissas, const NitiTensorDesc *t, size_t count, uint64_t seed) {
  switch (t->initial) {
    case NITI_INITIAL_UNIFORM:
      for (size_t k = 0; k < count; ++k) ((int8_t *)mantissas)[k] = niti_init_weight(seed, (uint32_t)t->layer, k);
      return niti_init_exponent(t->fan_in, t->fan_out);
    case NITI_INITIAL_ONE:
      for (size_t k = 0; k < count; ++k) ((int16_t *)mantissas)[k] = 1 << 14;
      return -14;
    case NITI_INITIAL_RUNNING:
      for (size_t k = count / 2; k < count; ++k) ((int64_t *)mantissas)[k] = (int64_t)1 << -NITI_NORM_RUNNING_EXPONENT;
      return NITI_NORM_RUNNING_EXPONENT;
    default: return -15;
  }
}

NitiStatus niti_network_init_weight(NitiNetwork *net, int32_t i, uint64_t seed) {
  const NitiTensorDesc *t = &net->program->tensors[net->weights[i]];
  const size_t count = niti_tensor_count(t, 0);
  void *mantissas = calloc(count, niti_dtype_bytes(t->dtype));
  if (!mantissas) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu initial weights", t->name, count);
  const int32_t exponent = fill_initial(mantissas, t, count, seed);
  const NitiStatus status = niti_network_set_weight(net, i, mantissas, exponent);
  free(mantissas);
  return status;
}

NitiStatus niti_network_init(NitiNetwork *net, uint64_t seed) {
  for (int32_t i = 0; i < net->weight_count; ++i) NITI_TRY(niti_network_init_weight(net, i, seed));
  return NITI_OK;
}
