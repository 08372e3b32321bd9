/* Vectors of training steps: opens a network and runs it operation by operation. */
#include "export/vectors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/update.h"
#include "export/import.h"
#include "export/plan.h"
#include "export/record.h"
#include "export/values.h"
#include "model/network.h"
#include "train/locate.h"
#include "train/snapshot.h"

enum { PURPOSE_PIXELS = 64, PURPOSE_LABELS = 65, HALF = 500000 };

typedef struct Vectors {
  NitiRecord record;
  NitiRecipe *recipe;
  NitiCheckpoint *checkpoint;
  NitiBackend *backend;
  NitiExecutable *executable;
  const NitiProgram *program;
  NitiDeviceStart start;
} Vectors;

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for vectors"); }

/* ---- steps ---- */

/* The images are a step's own: no file has them yet. */
static void draw_images(NitiRecord *r, int32_t classes) {
  const size_t count = niti_shape_image(r->bindings.source) * (size_t)r->program->batch;
  const NitiDraw pixels = {r->bindings.seed, PURPOSE_PIXELS, r->bindings.step, 0},
                 labels = {r->bindings.seed, PURPOSE_LABELS, r->bindings.step, 0};
  for (size_t k = 0; k < count; ++k) r->pixels[k] = (uint8_t)(niti_draw(&pixels, k) >> 24);
  for (int32_t n = 0; n < r->program->batch; ++n)
    r->labels[n] = (int32_t)niti_word_below(niti_draw(&labels, (uint64_t)n), (uint32_t)classes);
  for (int32_t t = 0; t < r->program->tensor_count; ++t) {
    if (r->program->tensors[t].role == NITI_ROLE_INPUT) r->files[t][0] = 0;
  }
}

static NitiStatus write_step(Vectors *v, int32_t step) {
  NitiRecord *r = &v->record;
  const int32_t mu = niti_program_find_scalar(v->program, "mu");
  r->bindings.step = v->start.step + (uint32_t)step;
  r->bindings.seed = v->start.seed;
  niti_recipe_scalars(r->bindings.scalars, v->recipe, v->program, v->start.position + step, r->program->batch);
  if (v->start.own && mu != NITI_NONE) r->bindings.scalars[mu] = (int64_t)v->start.mu * NITI_MU_UNITS;
  draw_images(r, v->recipe->model->classes);
  for (int32_t i = 0; i < v->program->operation_count; ++i) NITI_TRY(niti_record_operation(r, i));
  return NITI_OK;
}

/* ---- opening ---- */

/* Gives net the checkpoint's weights, and the optimiser's state where there is one: a network that is not trained has none. */
static NitiStatus fill(NitiNetwork *net, const NitiCheckpoint *checkpoint, const char *source) {
  for (int32_t t = 0; t < net->program->tensor_count; ++t) {
    const NitiTensorDesc *d = &net->program->tensors[t];
    if (d->role == NITI_ROLE_STATE && niti_checkpoint_find(checkpoint, d->name))
      return niti_snapshot_restore(net, checkpoint, source);
  }
  for (int32_t i = 0; i < net->weight_count; ++i) {
    bool found;
    NITI_TRY(niti_snapshot_restore_one(&found, net, i, checkpoint, source));
    if (!found) return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing", source, niti_network_weight(net, i).name);
  }
  return NITI_OK;
}

/* The tensor of the same name. */
static NitiStatus copy_tensor(Vectors *v, const NitiNetwork *net, int32_t to) {
  const NitiTensorDesc *d = &v->program->tensors[to];
  const int32_t from = niti_program_find(net->program, d->name);
  int32_t exponent = 0;
  void *data = malloc(niti_tensor_count(d, 0) * niti_dtype_bytes(d->dtype));
  if (!data) return out_of_memory();
  NitiStatus status = niti_executable_read(net->main, from, 0, data, &exponent);
  if (status == NITI_OK) status = niti_executable_write(v->executable, to, 0, data, &exponent);
  free(data);
  return status;
}

static NitiStatus restore(Vectors *v, const NitiLowerOptions *lowering, const NitiProgram *program) {
  const NitiCompileOptions plain = {.plain = true};
  NITI_TRY(niti_backend_compile(&v->executable, v->backend, program, &plain));
  v->program = niti_executable_program(v->executable);
  NitiNetwork *net;
  NITI_TRY(niti_network_open(&net, v->recipe->model, v->backend, lowering));
  NitiStatus status = fill(net, v->checkpoint, v->recipe->model->source);
  for (int32_t t = 0; t < v->program->tensor_count && status == NITI_OK; ++t) {
    const NitiRole role = v->program->tensors[t].role;
    if (role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE) status = copy_tensor(v, net, t);
  }
  niti_network_close(net);
  return status;
}

static NitiStatus write_table(const Vectors *v) {
  const int32_t table = niti_program_find(v->program, NITI_TENSOR_TABLE), channels = v->recipe->model->input.c;
  NitiDataOptions *data = &v->recipe->data;
  int8_t *values = malloc((size_t)channels * 256);
  int32_t exponent;
  if (!values) return out_of_memory();
  for (int32_t c = 0; data->stat_count == 0 && c < channels; ++c) data->mean[c] = data->std[c] = HALF;
  NitiStatus status = niti_input_table(values, &exponent, channels, data->mean, data->std);
  if (status == NITI_OK) status = niti_executable_write(v->executable, table, 0, values, &exponent);
  free(values);
  return status;
}

static NitiStatus check_words(const Vectors *v) {
  const char **names = malloc(((size_t)v->program->operation_count + 1) * sizeof *names);
  if (!names) return out_of_memory();
  for (int32_t i = 0; i < v->program->operation_count; ++i) names[i] = niti_opcodes[v->program->operations[i].opcode].name;
  const NitiStatus status =
      niti_record_check_words(v->record.options, names, (size_t)v->program->operation_count, "the network has");
  free((void *)names);
  return status;
}

/* Where the checkpoint stands: in its run, on its device, or at the beginning of a run whose epochs have as many steps as are
 * written. */
static NitiStatus open_rates(Vectors *v) {
  const int64_t steps = v->record.options->steps;
  char what[64];
  int mu;
  NITI_TRY(niti_device_start(&v->start, v->recipe, v->checkpoint, "cannot be written as vectors"));
  if (!v->start.placed) NITI_TRY(niti_recipe_place(v->recipe, steps, steps * v->recipe->epochs));
  for (int64_t k = 1; k < steps && !v->start.own; ++k) {
    (void)snprintf(what, sizeof what, "cannot be written as the vectors of step %" PRId64, k);
    NITI_TRY(niti_recipe_whole_mu(&mu, v->recipe, v->start.position + k, what));
  }
  return NITI_OK;
}

static NitiStatus open_program(Vectors *v) {
  const int32_t batch = v->record.options->batch ? v->record.options->batch : v->recipe->batch;
  const NitiLowerOptions lowering = niti_recipe_lowering(v->recipe, batch, true);
  const NitiBackendOptions cpu = {.name = "cpu", .threads = 1};
  NitiProgram *program = NULL;
  NITI_TRY(niti_backend_open(&v->backend, &cpu));
  NITI_TRY(niti_lower(&program, v->recipe->model, &lowering));
  NitiStatus status = restore(v, &lowering, program);
  niti_program_close(program);
  NITI_TRY(status);
  NITI_TRY(check_words(v));
  NITI_TRY(open_rates(v));
  NITI_TRY(niti_record_begin(&v->record, v->executable, v->recipe->model->input));
  return write_table(v);
}

static NitiStatus open_network(Vectors *v, const char *network) {
  NitiLocation where;
  NitiStatus status = niti_locate(&where, network);
  if (status == NITI_OK) status = niti_location_weights(&v->checkpoint, &where);
  if (status == NITI_OK) status = niti_checkpoint_recipe(&v->recipe, v->checkpoint, where.path);
  niti_location_close(&where);
  return status == NITI_OK ? open_program(v) : status;
}

static NitiStatus write_all(Vectors *v) {
  const NitiVectorOptions *options = v->record.options;
  NITI_TRY(niti_record_make_folder(&v->record));
  for (int32_t step = 0; step < options->steps; ++step) NITI_TRY(write_step(v, step));
  json_t *index = niti_record_index(&v->record, "steps");
  json_object_update_new(
      index, json_pack("{s:s, s:I, s:i, s:i, s:i}", "model", v->recipe->model->name, "seed", (json_int_t)v->start.seed, "batch",
                       v->program->batch, "steps", options->steps, "mu", v->start.mu));
  const NitiStatus status = niti_values_write_index(options->out, index);
  json_decref(index);
  return status;
}

NitiStatus niti_vectors_write(int64_t *count, const char *network, const NitiVectorOptions *options) {
  Vectors v = {.recipe = NULL};
  NitiStatus status = niti_record_open(&v.record, options);
  if (status == NITI_OK) status = open_network(&v, network);
  if (status == NITI_OK) status = write_all(&v);
  if (status != NITI_OK) niti_record_discard(&v.record);
  *count = status == NITI_OK ? v.record.count : 0;
  niti_record_close(&v.record);
  niti_executable_close(v.executable);
  niti_backend_close(v.backend);
  niti_recipe_close(v.recipe);
  niti_checkpoint_close(v.checkpoint);
  return status;
}
