/* Runs training steps operation by operation and writes down what each reads and makes. */
#include "export/vectors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/update.h"
#include "export/plan.h"
#include "export/sums.h"
#include "export/values.h"
#include "model/network.h"
#include "platform/system.h"
#include "program/bounds.h"
#include "train/locate.h"

enum { PURPOSE_PIXELS = 64, PURPOSE_LABELS = 65, HALF = 500000 };

typedef struct Vectors {
  const NitiVectorOptions *options;
  NitiRecipe *recipe;
  NitiCheckpoint *checkpoint;
  NitiBackend *backend;
  NitiExecutable *executable;
  const NitiProgram *program;
  unsigned formats;
  json_t *operations, *current; /* current: the operation's entry under way */
  char (*files)[160];           /* [tensors] the stem of the file that holds its content; "": none does */
  uint8_t *pixels;
  NitiSample *samples;
  int32_t *labels;
  int32_t step, mu;
  int64_t count;
} Vectors;

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for vectors"); }

/* Takes the entry, which the list owns from then on. */
static NitiStatus add_entry(json_t *list, json_t *entry) {
  return json_array_append_new(list, entry) == 0 ? NITI_OK : out_of_memory();
}

/* ---- folders ---- */

static NitiStatus open_folder(const char *out) {
  struct dirent *entry;
  bool empty = true;
  if (niti_system.mkdir(out, 0777) == 0) return NITI_OK;
  DIR *folder = errno == EEXIST ? niti_system.opendir(out) : NULL;
  if (!folder) return niti_fail(NITI_ERROR_FILE, "%s: cannot make the folder: %s", out, strerror(errno));
  while ((entry = niti_system.readdir(folder)) != NULL)
    empty &= strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
  (void)niti_system.closedir(folder);
  return empty ? NITI_OK : niti_fail(NITI_ERROR_FILE, "%s: the folder is not empty (expected a new one)", out);
}

static json_t *new_index(const char *kind, json_t *operations) {
  return json_pack("{s:s, s:s, s:s, s:O}", "kind", kind, "niti", niti_version(), "arithmetic", NITI_ARITHMETIC, "operations",
                   operations);
}

static NitiStatus choose_formats(unsigned *out, const char *formats) {
  *out = formats ? niti_values_formats(formats) : NITI_VALUES_NPY;
  if (*out) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "--formats %s: expected npy, hex, h, safetensors, separated by commas", formats);
}

/* ---- tensors ---- */

static const char *value_type(NitiDtype dtype) {
  static const char *const names[NITI_DTYPES] = {"int8", "uint8", "int16", "int32", "int64"};
  return names[dtype];
}

static size_t elements(const Vectors *v, int32_t tensor) {
  return niti_tensor_count(&v->program->tensors[tensor], v->program->batch);
}

/* A tensor's content, in new memory. */
static NitiStatus read_tensor(void **data, int32_t *exponent, const Vectors *v, int32_t tensor) {
  const NitiTensorDesc *t = &v->program->tensors[tensor];
  *exponent = 0;
  *data = malloc(elements(v, tensor) * niti_dtype_bytes(t->dtype) + 8);
  if (!*data) return out_of_memory();
  if (t->role != NITI_ROLE_INPUT) return niti_executable_read(v->executable, tensor, v->program->batch, *data, exponent);
  const void *from = t->dtype == NITI_DTYPE_U8 ? (const void *)v->pixels : t->rank == 1 ? (const void *)v->labels : v->samples;
  memcpy(*data, from, elements(v, tensor) * niti_dtype_bytes(t->dtype));
  return NITI_OK;
}

static void stem_of(char stem[160], const Vectors *v, int32_t operation, const char *what) {
  (void)snprintf(stem, 160, "step%04" PRId32 "-op%03" PRId32 "-%.100s", v->step, operation, what);
}

/* The values of one tensor, in a file unless one has them already. */
static NitiStatus put_tensor(Vectors *v, json_t *entries, int32_t operation, int32_t tensor, const void *data, int32_t exponent) {
  const NitiTensorDesc *t = &v->program->tensors[tensor];
  const bool known = v->files[tensor][0] != 0;
  NitiValues values = {.name = t->name,
                       .dtype = value_type(t->dtype),
                       .rank = t->rank,
                       .scaled = t->exponents != NITI_EXPONENTS_NONE,
                       .exponent = exponent,
                       .data = data};
  for (int32_t d = 0; d < t->rank; ++d) values.dims[d] = t->dims[d];
  if (!known) stem_of(v->files[tensor], v, operation, t->name);
  return niti_values_write(v->options->out, v->files[tensor], known ? 0 : v->formats, &values, entries);
}

static NitiStatus put_array(Vectors *v, const char *key, int32_t operation, const char *dtype, size_t count, const void *data) {
  const NitiValues values = {.name = key, .dtype = dtype, .rank = 1, .dims = {(int64_t)count}, .data = data};
  char stem[160];
  json_t *entries = json_array();
  stem_of(stem, v, operation, key);
  const NitiStatus status = niti_values_write(v->options->out, stem, v->formats, &values, entries);
  if (status == NITI_OK) json_object_set(v->current, key, json_array_get(entries, 0));
  json_decref(entries);
  return status;
}

/* ---- sums, shifts and random words ---- */

static uint64_t largest(const int64_t *sums, size_t count) {
  uint64_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t m = (uint64_t)(sums[i] < 0 ? -sums[i] : sums[i]);
    if (m > max) max = m;
  }
  return max;
}

static NitiStatus put_words(Vectors *v, int32_t i, size_t count) {
  const NitiRoundingRecord *r = &v->program->operations[i].rounding;
  const NitiDraw draw = {v->recipe->seed, r->purpose, (uint32_t)v->step, r->stream};
  uint32_t *words = malloc(count * sizeof *words);
  if (!words) return out_of_memory();
  for (size_t k = 0; k < count; ++k) words[k] = niti_draw(&draw, k);
  json_object_set_new(v->current, "draw",
                      json_pack("{s:I, s:I, s:I}", "purpose", (json_int_t)r->purpose, "time", (json_int_t)v->step, "layer",
                                (json_int_t)r->stream));
  const NitiStatus status = put_array(v, "words", i, "uint32", count, words);
  free(words);
  return status;
}

/* What the backend made must be what these sums round to. */
static NitiStatus check_rounded(const Vectors *v, int32_t i, const int64_t *sums, const int8_t *out, size_t count, int shift) {
  const NitiRoundingRecord *r = &v->program->operations[i].rounding;
  const NitiDraw draw = {v->recipe->seed, r->purpose, (uint32_t)v->step, r->stream};
  for (size_t k = 0; k < count; ++k) {
    const uint32_t word = r->mode == NITI_STOCHASTIC ? niti_draw(&draw, k) : 0;
    if (niti_round_int8(sums[k], shift, r->mode, word) == out[k]) continue;
    return niti_fail(NITI_ERROR_DEVICE, "operation %d: element %zu is %d, but its sum %lld rounds to another value", i, k, out[k],
                     (long long)sums[k]);
  }
  return NITI_OK;
}

static NitiStatus put_sums(Vectors *v, int32_t i, const NitiSumOperands *in, int32_t output, const void *out) {
  const NitiOperation *o = &v->program->operations[i];
  const size_t count = elements(v, output);
  const bool gradient = o->opcode == NITI_OP_CONV_GRADIENT;
  int64_t *sums = calloc(count + 1, sizeof *sums);
  if (!sums) return out_of_memory();
  niti_sums(sums, o, in, count, v->program->batch);
  const uint64_t max = largest(sums, count);
  const int shift = niti_requantise_shift_clipped((uint32_t)max, o->rounding.clip);
  NitiStatus status = gradient ? NITI_OK : check_rounded(v, i, sums, out, count, shift);
  json_object_set_new(v->current, "max", json_integer((json_int_t)max));
  if (status == NITI_OK && !gradient) {
    json_object_set_new(v->current, "shift", json_integer(shift));
    if (o->rounding.clip > 0) json_object_set_new(v->current, "clip", json_integer(o->rounding.clip));
    json_object_set_new(v->current, "rounding", json_string(niti_rounding_name(o->rounding.mode)));
    int32_t *narrow = (int32_t *)sums; /* in place: element k ends before element k + 1 begins */
    for (size_t k = 0; k < count; ++k) narrow[k] = (int32_t)sums[k];
    status = put_array(v, "accumulators", i, "int32", count, narrow);
  }
  if (status == NITI_OK && !gradient && o->rounding.mode == NITI_STOCHASTIC) status = put_words(v, i, count);
  free(sums);
  return status;
}

/* An update's shift and the steps that it subtracts. */
static NitiStatus put_update(Vectors *v, int32_t i, const void *gradient) {
  const NitiTensorDesc *t = &v->program->tensors[v->program->operations[i].inputs[1]];
  const size_t count = niti_tensor_count(t, 0);
  int64_t *sums = calloc(count, sizeof *sums);
  int8_t *steps = calloc(count, 1);
  NitiStatus status = sums && steps ? NITI_OK : out_of_memory();
  for (size_t k = 0; k < count && status == NITI_OK; ++k)
    sums[k] = t->dtype == NITI_DTYPE_S64 ? ((const int64_t *)gradient)[k] : ((const int32_t *)gradient)[k];
  if (status == NITI_OK) {
    const uint64_t max = largest(sums, count);
    const int bits = niti_bits(max), shift = bits - v->mu;
    for (size_t k = 0; k < count && bits > 0; ++k)
      steps[k] = niti_round_int8(sums[k], shift < 1 ? 0 : shift, NITI_PSEUDO_STOCHASTIC, 0);
    json_object_update_new(v->current,
                           json_pack("{s:I, s:i, s:i, s:i}", "max", (json_int_t)max, "bits", bits, "mu", v->mu, "shift", shift));
    status = put_array(v, "steps", i, "int8", count, steps);
  }
  free(sums);
  free(steps);
  return status;
}

/* ---- operations ---- */

static bool is_wanted(const Vectors *v, const NitiOperation *o) {
  const char *list = v->options->operations, *name = niti_opcodes[o->opcode].name;
  if (!list) return true;
  while (*list) {
    char word[32];
    const size_t length = strcspn(list, ",");
    (void)snprintf(word, sizeof word, "%.*s", (int)length, list);
    if (word[0] && strstr(name, word)) return true;
    list += length + (list[length] == ',');
  }
  return false;
}

static json_t *window_of(int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw) {
  return json_pack("{s:[i,i], s:[i,i], s:[i,i]}", "kernel", kh, kw, "stride", sh, sw, "padding", ph, pw);
}

static json_t *attributes_of(const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  const NitiPool *p = &o->pool;
  if (o->opcode == NITI_OP_CONV_FORWARD || o->opcode == NITI_OP_CONV_BACKWARD || o->opcode == NITI_OP_CONV_GRADIENT)
    return window_of(c->kh, c->kw, c->stride_h, c->stride_w, c->pad_h, c->pad_w);
  if (o->opcode >= NITI_OP_MAXPOOL_FORWARD && o->opcode <= NITI_OP_AVGPOOL_BACKWARD)
    return window_of(p->kh, p->kw, p->stride_h, p->stride_w, p->pad_h, p->pad_w);
  if (o->opcode == NITI_OP_LOSS) return json_pack("{s:s}", "loss", niti_export_is_softmax(o) ? "softmax" : "niti");
  if (o->opcode == NITI_OP_DROPOUT) return json_pack("{s:b}", "shared_mask", niti_export_shares_mask(o));
  return json_object();
}

static NitiStatus put_inputs(Vectors *v, int32_t i, void **data, NitiSumOperands *in) {
  const NitiOperation *o = &v->program->operations[i];
  json_t *entries = json_array();
  if (json_object_set_new(v->current, "inputs", entries) != 0) return out_of_memory();
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] == NITI_NONE) continue;
    NITI_TRY(read_tensor(&data[k], &in->exponent[k], v, o->inputs[k]));
    in->input[k] = data[k];
    NITI_TRY(put_tensor(v, entries, i, o->inputs[k], data[k], in->exponent[k]));
  }
  return NITI_OK;
}

static NitiStatus put_outputs(Vectors *v, int32_t i, const NitiSumOperands *in) {
  const NitiOperation *o = &v->program->operations[i];
  json_t *entries = json_array();
  if (json_object_set_new(v->current, "outputs", entries) != 0) return out_of_memory();
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    const int32_t tensor = o->outputs[k];
    void *data = NULL;
    int32_t exponent = 0;
    if (tensor == NITI_NONE) continue;
    NitiStatus status = read_tensor(&data, &exponent, v, tensor);
    if (status == NITI_OK) status = put_tensor(v, entries, i, tensor, data, exponent);
    const bool rounded =
        v->program->tensors[tensor].role != NITI_ROLE_METRIC && v->program->tensors[tensor].role != NITI_ROLE_SAVED;
    if (status == NITI_OK && rounded && niti_has_sums(o)) status = put_sums(v, i, in, tensor, data);
    if (status == NITI_OK && rounded &&
        (o->opcode == NITI_OP_DROPOUT || (o->opcode == NITI_OP_LOSS && !niti_export_is_softmax(o))))
      status = put_words(v, i, elements(v, tensor));
    free(data);
    NITI_TRY(status);
  }
  return o->opcode == NITI_OP_UPDATE_NITI ? put_update(v, i, in->input[1]) : NITI_OK;
}

static void forget_outputs(Vectors *v, int32_t i) {
  const NitiOperation *o = &v->program->operations[i];
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->outputs[k] != NITI_NONE) v->files[o->outputs[k]][0] = 0;
  }
}

static NitiStatus write_operation(Vectors *v, int32_t i, const NitiBindings *b) {
  const NitiOperation *o = &v->program->operations[i];
  NitiSumOperands in = {.labels = v->labels};
  void *data[NITI_OPERANDS_MAX] = {NULL};
  v->current = json_pack("{s:i, s:i, s:s, s:s, s:s, s:o}", "step", v->step, "operation", i, "opcode",
                         niti_opcodes[o->opcode].name, "phase", niti_phase_name(o->phase), "layer",
                         o->layer > 0 ? v->program->layers[o->layer] : "", "attributes", attributes_of(o));
  NITI_TRY(add_entry(v->operations, v->current));
  NitiStatus status = put_inputs(v, i, data, &in);
  if (status == NITI_OK) status = niti_executable_run(v->executable, i, i + 1, b);
  forget_outputs(v, i);
  if (status == NITI_OK) status = put_outputs(v, i, &in);
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) free(data[k]);
  ++v->count;
  return status;
}

static void draw_images(Vectors *v) {
  const NitiDescription *m = v->recipe->model;
  const size_t count = niti_shape_image(m->input) * (size_t)v->program->batch;
  const NitiDraw pixels = {v->recipe->seed, PURPOSE_PIXELS, (uint32_t)v->step, 0},
                 labels = {v->recipe->seed, PURPOSE_LABELS, (uint32_t)v->step, 0};
  for (size_t k = 0; k < count; ++k) v->pixels[k] = (uint8_t)(niti_draw(&pixels, k) >> 24);
  for (int32_t n = 0; n < v->program->batch; ++n) {
    v->labels[n] = (int32_t)niti_word_below(niti_draw(&labels, (uint64_t)n), (uint32_t)m->classes);
    v->samples[n] = (NitiSample){.image = (uint32_t)n};
  }
  for (int32_t t = 0; t < v->program->tensor_count; ++t) {
    if (v->program->tensors[t].role == NITI_ROLE_INPUT) v->files[t][0] = 0;
  }
}

static NitiStatus write_step(Vectors *v) {
  draw_images(v);
  NitiBindings b = {.batch = v->program->batch,
                    .seed = v->recipe->seed,
                    .step = (uint32_t)v->step,
                    .pixels = v->pixels,
                    .source = v->recipe->model->input,
                    .samples = v->samples,
                    .labels = v->labels};
  const int32_t mu = niti_program_find_scalar(v->program, "mu");
  if (mu != NITI_NONE) b.scalars[mu] = (int64_t)v->mu * NITI_MU_UNITS;
  for (int32_t i = 0; i < v->program->operation_count; ++i) {
    if (is_wanted(v, &v->program->operations[i])) {
      NITI_TRY(write_operation(v, i, &b));
    } else {
      NITI_TRY(niti_executable_run(v->executable, i, i + 1, &b));
      forget_outputs(v, i);
    }
  }
  return NITI_OK;
}

/* ---- opening ---- */

static NitiStatus restore(Vectors *v, NitiDescription *model, const NitiProgram *program) {
  const NitiCompileOptions plain = {.plain = true};
  NITI_TRY(niti_backend_compile(&v->executable, v->backend, program, &plain));
  v->program = niti_executable_program(v->executable);
  for (int32_t t = 0; t < v->program->tensor_count; ++t) {
    const NitiTensorDesc *d = &v->program->tensors[t];
    if (d->role != NITI_ROLE_WEIGHT) continue;
    const NitiCheckpointTensor *from = niti_checkpoint_find(v->checkpoint, d->name);
    if (!from || from->dtype != NITI_I8)
      return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing", model->source, d->name);
    NITI_TRY(niti_executable_write(v->executable, t, 0, from->data, &from->exponent));
  }
  return NITI_OK;
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

static NitiStatus open_program(Vectors *v) {
  const int32_t batch = v->options->batch ? v->options->batch : v->recipe->batch;
  const NitiLowerOptions lowering = niti_recipe_lowering(v->recipe, batch, true);
  const NitiBackendOptions cpu = {.name = "cpu", .threads = 1};
  NitiProgram *program = NULL;
  NITI_TRY(niti_backend_open(&v->backend, &cpu));
  NITI_TRY(niti_lower(&program, v->recipe->model, &lowering));
  NitiStatus status = niti_export_check_vectors(program);
  if (status == NITI_OK) status = restore(v, v->recipe->model, program);
  niti_program_close(program);
  NITI_TRY(status);
  v->files = calloc((size_t)v->program->tensor_count, sizeof *v->files);
  v->pixels = malloc(niti_shape_image(v->recipe->model->input) * (size_t)batch);
  v->samples = calloc((size_t)batch, sizeof *v->samples);
  v->labels = calloc((size_t)batch, sizeof *v->labels);
  NITI_TRY(niti_recipe_whole_mu(&v->mu, v->recipe, "cannot be written as vectors"));
  return v->files && v->pixels && v->samples && v->labels ? write_table(v) : out_of_memory();
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
  NITI_TRY(open_folder(v->options->out));
  for (v->step = 0; v->step < v->options->steps; ++v->step) NITI_TRY(write_step(v));
  if (v->count == 0)
    return niti_fail(NITI_ERROR_ARGUMENT, "--operations %s: the network has no such operation", v->options->operations);
  json_t *index = new_index("steps", v->operations);
  json_object_update_new(
      index, json_pack("{s:s, s:I, s:i, s:i, s:i}", "model", v->recipe->model->name, "seed", (json_int_t)v->recipe->seed, "batch",
                       v->program->batch, "steps", v->options->steps, "mu", v->mu));
  const NitiStatus status = niti_values_write_index(v->options->out, index);
  json_decref(index);
  return status;
}

NitiStatus niti_vectors_write(int64_t *count, const char *network, const NitiVectorOptions *options) {
  Vectors v = {.options = options, .operations = json_array()};
  NitiStatus status = choose_formats(&v.formats, options->formats);
  if (status == NITI_OK) status = open_network(&v, network);
  if (status == NITI_OK) status = write_all(&v);
  *count = status == NITI_OK ? v.count : 0;
  json_decref(v.operations);
  niti_executable_close(v.executable);
  niti_backend_close(v.backend);
  niti_recipe_close(v.recipe);
  niti_checkpoint_close(v.checkpoint);
  free(v.files);
  free(v.pixels);
  free(v.samples);
  free(v.labels);
  return status;
}

/* ---- directed cases ---- */

typedef struct Corners {
  const NitiVectorOptions *options;
  unsigned formats;
  json_t *operations;
  int64_t count;
} Corners;

/* Accumulators round the points where something changes at a shift: ties, clips, the ends of the range. */
static size_t interesting(int32_t *out, int shift) {
  size_t count = 0;
  for (int sign = -1; sign <= 1; sign += 2) {
    static const int32_t values[] = {0, 1, 2, 63, 64, 126, 127, 128};
    for (size_t k = 0; k < sizeof values / sizeof *values; ++k) {
      for (int64_t near = -1; near <= 1; ++near) {
        const int64_t whole = ((int64_t)values[k] << shift) + near, half = whole + (shift > 0 ? (int64_t)1 << (shift - 1) : 0);
        if (whole >= 0 && whole <= INT32_MAX) out[count++] = (int32_t)(sign * whole);
        if (half >= 0 && half <= INT32_MAX) out[count++] = (int32_t)(sign * half);
      }
    }
  }
  out[count++] = INT32_MAX;
  out[count++] = -INT32_MAX;
  return count;
}

/* The same where the upper half of the dropped bits and the lower one, twice as large where their number is odd, are nearly
 * equal. */
static size_t near_halves(int32_t *out, int shift) {
  const int32_t half = shift / 2, high_most = shift > half ? (1 << (shift - half)) - 1 : 0, low_most = (1 << half) - 1;
  size_t count = 0;
  for (int32_t k = 0; k < 8 && shift > 0; ++k) {
    const int32_t high = (int32_t)((int64_t)high_most * (k + 1) / 9), equal = shift % 2 ? high / 2 : high;
    for (int32_t low = equal - 1; low <= equal + 1; ++low) {
      const int32_t rest = high << half | (low < 0 ? 0 : low > low_most ? low_most : low);
      out[count++] = k % 2 ? -rest : rest;
      if (shift < 24) out[count++] = (5 << shift) + rest;
    }
    out[count++] = high << half | (high < low_most ? high : low_most);
    out[count++] = high << half | (high / 2 < low_most ? high / 2 : low_most);
  }
  return count;
}

static NitiStatus put_case(Corners *c, json_t *entry, const char *key, const char *dtype, size_t n, const void *data) {
  const NitiValues values = {.name = key, .dtype = dtype, .rank = 1, .dims = {(int64_t)n}, .data = data};
  char stem[96];
  json_t *entries = json_array();
  (void)snprintf(stem, sizeof stem, "case%03" PRId64 "-%s", c->count, key);
  const NitiStatus status = niti_values_write(c->options->out, stem, c->formats, &values, entries);
  if (status == NITI_OK) json_object_set(entry, key, json_array_get(entries, 0));
  json_decref(entries);
  return status;
}

static NitiStatus round_case(Corners *c, NitiRounding mode, int shift) {
  int32_t sums[256];
  uint32_t words[256];
  int8_t results[256];
  size_t n = interesting(sums, shift);
  if (mode == NITI_PSEUDO_STOCHASTIC) n += near_halves(sums + n, shift);
  json_t *entry = json_pack("{s:s, s:s, s:i}", "opcode", "requantise", "rounding", niti_rounding_name(mode), "shift", shift);
  NITI_TRY(add_entry(c->operations, entry));
  for (size_t k = 0; k < n; ++k) {
    const uint32_t rest = (uint32_t)(sums[k] < 0 ? -sums[k] : sums[k]) & (shift ? (1u << shift) - 1 : 0);
    words[k] = shift == 0               ? 0
               : k % 3 == 0             ? rest << (32 - shift)
               : k % 3 == 1 && rest > 0 ? (rest - 1) << (32 - shift)
                                        : UINT32_MAX;
    results[k] = niti_round_int8(sums[k], shift, mode, words[k]);
  }
  NITI_TRY(put_case(c, entry, "accumulators", "int32", n, sums));
  if (mode == NITI_STOCHASTIC) NITI_TRY(put_case(c, entry, "words", "uint32", n, words));
  NITI_TRY(put_case(c, entry, "results", "int8", n, results));
  ++c->count;
  return NITI_OK;
}

static NitiStatus update_case(Corners *c, int32_t top, int mu) {
  int64_t gradient[8] = {top, -top, top / 2, -top / 2, 1, -1, 0, top - (top > 0)};
  int8_t before[8] = {127, -127, 0, 127, -127, 1, 5, -3}, after[8];
  json_t *entry = json_pack("{s:s, s:i}", "opcode", "update_niti", "mu", mu);
  NITI_TRY(add_entry(c->operations, entry));
  memcpy(after, before, sizeof after);
  niti_update_niti(after, gradient, 8, mu);
  NITI_TRY(put_case(c, entry, "weights", "int8", 8, before));
  NITI_TRY(put_case(c, entry, "gradient", "int64", 8, gradient));
  NITI_TRY(put_case(c, entry, "results", "int8", 8, after));
  ++c->count;
  return NITI_OK;
}

static NitiStatus add_case(Corners *c, int32_t ea, int32_t eb) {
  static const int8_t a[] = {127, -127, 0, 1, -1, 127, 64, -64, 2, -3}, b[] = {127, 127, -127, 1, -1, -1, 64, -63, 3, -2};
  enum { N = sizeof a };
  int64_t sums[N];
  int32_t narrow[N];
  int8_t results[N];
  NitiOperation o = niti_operation(NITI_OP_ADD, NITI_PHASE_FORWARD, 0);
  const NitiSumOperands in = {.input = {a, b}, .exponent = {ea, eb}};
  niti_sums(sums, &o, &in, N, 1);
  const int shift = niti_requantise_shift((uint32_t)largest(sums, N));
  for (int k = 0; k < N; ++k) {
    narrow[k] = (int32_t)sums[k];
    results[k] = niti_round_int8(sums[k], shift, NITI_NEAREST, 0);
  }
  json_t *entry =
      json_pack("{s:s, s:[i,i], s:i, s:s}", "opcode", "add", "exponents", ea, eb, "shift", shift, "rounding", "nearest");
  NITI_TRY(add_entry(c->operations, entry));
  NITI_TRY(put_case(c, entry, "a", "int8", N, a));
  NITI_TRY(put_case(c, entry, "b", "int8", N, b));
  NITI_TRY(put_case(c, entry, "accumulators", "int32", N, narrow));
  NITI_TRY(put_case(c, entry, "results", "int8", N, results));
  ++c->count;
  return NITI_OK;
}

/* The longest sum that int32 holds exactly, of products of the largest mantissas. */
static NitiStatus longest_case(Corners *c, int8_t x, int8_t w) {
  enum { N = 133144 };
  int8_t *values = malloc(2 * N);
  int32_t sum = 0;
  if (!values) return out_of_memory();
  for (int i = 0; i < N; ++i) {
    values[i] = x;
    values[N + i] = w;
    sum += x * w;
  }
  json_t *entry = json_pack("{s:s, s:i}", "opcode", "dot", "shift", niti_requantise_shift((uint32_t)(sum < 0 ? -sum : sum)));
  NitiStatus status = add_entry(c->operations, entry);
  if (status == NITI_OK) status = put_case(c, entry, "a", "int8", N, values);
  if (status == NITI_OK) status = put_case(c, entry, "b", "int8", N, values + N);
  if (status == NITI_OK) status = put_case(c, entry, "accumulators", "int32", 1, &sum);
  free(values);
  ++c->count;
  return status;
}

static NitiStatus write_corners(Corners *c) {
  static const int32_t tops[] = {0, 1, 2, 3, 16, 17, 127, 128, 200, 1000000, INT32_MAX};
  static const int rates[] = {0, 1, 4, 7, 8, 16, 30};
  for (int mode = NITI_NEAREST; mode <= NITI_TRUNCATE; ++mode) {
    for (int shift = 0; shift <= 24; ++shift) NITI_TRY(round_case(c, (NitiRounding)mode, shift));
  }
  for (size_t k = 0; k < sizeof tops / sizeof *tops; ++k) {
    for (size_t m = 0; m < sizeof rates / sizeof *rates; ++m) NITI_TRY(update_case(c, tops[k], rates[m]));
  }
  for (int32_t d = -26; d <= 26; ++d) NITI_TRY(add_case(c, -10, -10 + d));
  NITI_TRY(longest_case(c, 127, 127));
  return longest_case(c, -127, 127);
}

NitiStatus niti_vectors_corners(int64_t *count, const NitiVectorOptions *options) {
  Corners c = {.options = options, .operations = json_array()};
  NitiStatus status = choose_formats(&c.formats, options->formats);
  if (status == NITI_OK) status = open_folder(options->out);
  if (status == NITI_OK) status = write_corners(&c);
  if (status == NITI_OK) {
    json_t *index = new_index("corners", c.operations);
    status = niti_values_write_index(options->out, index);
    json_decref(index);
  }
  *count = c.count;
  json_decref(c.operations);
  return status;
}
