/* Runs operations one by one, and writes down what each reads and makes. */
#include "export/record.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/norm.h"
#include "base/update.h"
#include "export/plan.h"
#include "export/sums.h"
#include "export/values.h"
#include "platform/folder.h"
#include "platform/system.h"
#include "program/bounds.h"

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for vectors"); }

NitiStatus niti_record_add(NitiRecord *r, json_t *entry) {
  return json_array_append_new(r->operations, entry) == 0 ? NITI_OK : out_of_memory();
}

/* ---- opening ---- */

NitiStatus niti_record_open(NitiRecord *out, const NitiVectorOptions *options) {
  *out = (NitiRecord){.options = options, .operations = json_array(), .prefix = "step"};
  out->formats = options->formats ? niti_values_formats(options->formats) : NITI_VALUES_NPY;
  if (out->formats) return out->operations ? NITI_OK : out_of_memory();
  return niti_fail(NITI_ERROR_ARGUMENT, "--formats %s: expected npy, hex, h, safetensors, separated by commas", options->formats);
}

static void free_program(NitiRecord *r) {
  free(r->files);
  free(r->pixels);
  free(r->samples);
  free(r->labels);
}

void niti_record_close(NitiRecord *r) {
  json_decref(r->operations);
  free_program(r);
}

NitiStatus niti_record_begin(NitiRecord *r, NitiExecutable *executable, NitiShape input) {
  free_program(r);
  r->executable = executable;
  r->program = niti_executable_program(executable);
  const size_t batch = (size_t)r->program->batch;
  r->files = calloc((size_t)r->program->tensor_count, sizeof *r->files);
  r->pixels = malloc(niti_shape_image(input) * batch);
  r->samples = calloc(batch, sizeof *r->samples);
  r->labels = calloc(batch, sizeof *r->labels);
  r->bindings = (NitiBindings){
      .batch = r->program->batch, .pixels = r->pixels, .source = input, .samples = r->samples, .labels = r->labels};
  for (size_t n = 0; r->samples && n < batch; ++n) r->samples[n] = (NitiSample){.image = (uint32_t)n};
  return r->files && r->pixels && r->samples && r->labels ? NITI_OK : out_of_memory();
}

/* ---- which operations ---- */

/* The next word of a list, in `word`; NULL at its end. */
static const char *next_word(char word[32], const char *list) {
  const size_t length = strcspn(list, ",");
  if (!*list) return NULL;
  (void)snprintf(word, 32, "%.*s", (int)(length < 31 ? length : 31), list);
  return list + length + (list[length] == ',');
}

static bool any_has(const char *const *names, size_t count, const char *word) {
  for (size_t i = 0; i < count; ++i) {
    if (word[0] && strstr(names[i], word)) return true;
  }
  return false;
}

NitiStatus niti_record_check_words(const NitiVectorOptions *options, const char *const *names, size_t count, const char *whose) {
  char word[32];
  const char *list = options->operations;
  if (list && !*list) return niti_fail(NITI_ERROR_ARGUMENT, "--operations: expected words of operations' names");
  if (list && list[strlen(list) - 1] == ',')
    return niti_fail(NITI_ERROR_ARGUMENT, "--operations %s: expected a word after the last comma", list);
  while (list && (list = next_word(word, list)) != NULL) {
    if (!any_has(names, count, word))
      return niti_fail(NITI_ERROR_ARGUMENT, "--operations %s: %s no such operation: '%s'", options->operations, whose, word);
  }
  return NITI_OK;
}

/* NULL: every name has one. */
static bool has_word(const char *list, const char *name) {
  char word[32];
  if (!list) return true;
  while ((list = next_word(word, list)) != NULL) {
    if (word[0] && strstr(name, word)) return true;
  }
  return false;
}

bool niti_record_wants(const NitiRecord *r, const char *name) {
  return has_word(r->options->operations, name) && has_word(r->only, name);
}

/* ---- folders ---- */

static NitiStatus refuse_entry(void *context, const char *name, bool folder) {
  (void)folder;
  return niti_fail(NITI_ERROR_FILE, "%s: the folder is not empty: '%s' (expected a new one)", (const char *)context, name);
}

NitiStatus niti_record_make_folder(NitiRecord *r) {
  const char *out = r->options->out;
  NITI_TRY(niti_folder_make(&r->kept, out));
  if (r->kept == strlen(out)) NITI_TRY(niti_folder_walk(out, refuse_entry, (void *)(uintptr_t)out));
  r->made = true;
  return NITI_OK;
}

static NitiStatus remove_entry(void *context, const char *name, bool folder) {
  char path[PATH_MAX];
  const int length = snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
  if (!folder && length < (int)sizeof path) (void)niti_system.unlink(path);
  return NITI_OK;
}

void niti_record_discard(const NitiRecord *r) {
  const char *out = r->options->out;
  if (!r->made) return;
  (void)niti_folder_walk(out, remove_entry, (void *)(uintptr_t)out);
  niti_folder_unmake(out, r->kept);
}

json_t *niti_record_index(const NitiRecord *r, const char *kind) {
  return json_pack("{s:s, s:s, s:s, s:O}", "kind", kind, "niti", niti_version(), "arithmetic", NITI_ARITHMETIC, "operations",
                   r->operations);
}

/* ---- tensors ---- */

static const char *value_type(NitiDtype dtype) {
  static const char *const names[NITI_DTYPES] = {"int8", "uint8", "int16", "int32", "int64"};
  return names[dtype];
}

/* A letter per dimension, the slowest first: docs/microcontrollers.md. */
static const char *layout_of(const NitiTensorDesc *t) {
  const bool weight = t->role == NITI_ROLE_WEIGHT || t->role == NITI_ROLE_GRADIENT || t->role == NITI_ROLE_STATE;
  if (t->rank == 4) return weight ? "OHWI" : "NHWC";
  if (t->rank == 1) return weight ? "C" : t->role == NITI_ROLE_INPUT ? "N" : "P";
  if (weight) return t->initial == NITI_INITIAL_RUNNING ? "PC" : "OI";
  if (t->role == NITI_ROLE_INPUT) return "NP";
  return t->role == NITI_ROLE_SAVED || t->role == NITI_ROLE_CONSTANT ? "CP" : "NC";
}

static size_t elements(const NitiRecord *r, int32_t tensor) {
  return niti_tensor_count(&r->program->tensors[tensor], r->program->batch);
}

/* A tensor's content, in new memory. */
static NitiStatus read_tensor(void **data, int32_t *exponent, const NitiRecord *r, int32_t tensor) {
  const NitiTensorDesc *t = &r->program->tensors[tensor];
  *exponent = 0;
  *data = malloc(elements(r, tensor) * niti_dtype_bytes(t->dtype) + 8);
  if (!*data) return out_of_memory();
  if (t->role != NITI_ROLE_INPUT) return niti_executable_read(r->executable, tensor, r->program->batch, *data, exponent);
  const void *from = t->dtype == NITI_DTYPE_U8 ? (const void *)r->pixels : t->rank == 1 ? (const void *)r->labels : r->samples;
  memcpy(*data, from, elements(r, tensor) * niti_dtype_bytes(t->dtype));
  return NITI_OK;
}

static void stem_of(char stem[NITI_STEM_MAX], const NitiRecord *r, int32_t operation, const char *what) {
  (void)snprintf(stem, NITI_STEM_MAX, "%s%04" PRIu32 "-op%03" PRId32 "-%.100s", r->prefix, r->bindings.step, operation, what);
}

/* Of a tensor's shape. */
static NitiValues values_of(const NitiRecord *r, int32_t tensor, const char *name, const char *dtype, const void *data) {
  const NitiTensorDesc *t = &r->program->tensors[tensor];
  NitiValues values = {.name = name, .dtype = dtype, .layout = layout_of(t), .rank = t->rank, .data = data};
  for (int32_t d = 0; d < t->rank; ++d) values.dims[d] = t->dims[d];
  return values;
}

/* The values of one tensor, in a file unless one has them already. changed: the operation has read it, too. */
static NitiStatus put_tensor(NitiRecord *r, json_t *entries, int32_t operation, int32_t tensor, const void *data,
                             int32_t exponent, bool changed) {
  const NitiTensorDesc *t = &r->program->tensors[tensor];
  const bool known = r->files[tensor][0] != 0;
  NitiValues values = values_of(r, tensor, t->name, value_type(t->dtype), data);
  values.scaled = t->exponents != NITI_EXPONENTS_NONE;
  values.exponent = exponent;
  if (!known) {
    char name[NITI_TENSOR_NAME_MAX + 8];
    (void)snprintf(name, sizeof name, "%s%s", t->name, changed ? ".after" : "");
    stem_of(r->files[tensor], r, operation, name);
  }
  return niti_values_write(r->options->out, r->files[tensor], known ? 0 : r->formats, &values, entries);
}

/* What belongs to each element of a tensor, or, `shared`, to each element of an image, of which there is one then. */
static NitiStatus put_array(NitiRecord *r, const char *key, int32_t operation, int32_t tensor, const char *dtype,
                            const void *data, bool shared) {
  NitiValues values = values_of(r, tensor, key, dtype, data);
  if (shared) values.dims[0] = 1;
  char stem[NITI_STEM_MAX];
  json_t *entries = json_array();
  stem_of(stem, r, operation, key);
  const NitiStatus status = niti_values_write(r->options->out, stem, r->formats, &values, entries);
  if (status == NITI_OK) json_object_set(r->current, key, json_array_get(entries, 0));
  json_decref(entries);
  return status;
}

/* ---- sums, shifts and random words ---- */

uint64_t niti_record_largest(const int64_t *sums, size_t count) {
  uint64_t max = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t m = (uint64_t)(sums[i] < 0 ? -sums[i] : sums[i]);
    if (m > max) max = m;
  }
  return max;
}

static NitiDraw draw_of(const NitiRecord *r, const NitiRoundingRecord *o) {
  return (NitiDraw){r->bindings.seed, o->purpose, r->bindings.step, o->stream};
}

/* A word per element; of rounding `stochastic-byte` its byte. */
static NitiStatus put_words(NitiRecord *r, int32_t i, int32_t tensor, NitiRounding mode) {
  const NitiDraw draw = draw_of(r, &r->program->operations[i].rounding);
  const bool shared = niti_export_shares_mask(&r->program->operations[i]);
  const size_t count = elements(r, tensor) / (shared ? (size_t)r->program->batch : 1);
  uint32_t *words = malloc(count * sizeof *words);
  if (!words) return out_of_memory();
  for (size_t k = 0; k < count; ++k) words[k] = niti_rounding_word(&draw, mode, k);
  json_object_set_new(r->current, "draw",
                      json_pack("{s:I, s:I, s:I}", "purpose", (json_int_t)draw.purpose, "time", (json_int_t)draw.time, "layer",
                                (json_int_t)draw.layer));
  const NitiStatus status = put_array(r, "words", i, tensor, "uint32", words, shared);
  free(words);
  return status;
}

/* What the backend made must be what these sums round to. */
static NitiStatus check_rounded(const NitiRecord *r, int32_t i, const int64_t *sums, const int8_t *out, size_t count, int shift) {
  const NitiRoundingRecord *o = &r->program->operations[i].rounding;
  const NitiDraw draw = draw_of(r, o);
  for (size_t k = 0; k < count; ++k) {
    const uint32_t word = niti_rounding_word(&draw, o->mode, k);
    if (niti_round_int8(sums[k], shift, o->mode, word) == out[k]) continue;
    return niti_fail(NITI_ERROR_DEVICE, "operation %d: element %zu is %d, but its sum %lld rounds to another value", i, k, out[k],
                     (long long)sums[k]);
  }
  return NITI_OK;
}

static NitiStatus put_rounding(NitiRecord *r, int32_t i, int64_t *sums, int32_t output, uint64_t max, const void *out) {
  const NitiOperation *o = &r->program->operations[i];
  const bool norm = o->opcode == NITI_OP_NORM_FORWARD || o->opcode == NITI_OP_NORM_BACKWARD; /* whose range is known before */
  const int shift = norm ? NITI_NORM_FRACTION : niti_requantise_shift_clipped((uint32_t)max, o->rounding.clip);
  const size_t count = elements(r, output);
  NITI_TRY(check_rounded(r, i, sums, out, count, shift));
  json_object_set_new(r->current, "shift", json_integer(shift));
  if (o->rounding.clip > 0) json_object_set_new(r->current, "clip", json_integer(o->rounding.clip));
  json_object_set_new(r->current, "rounding", json_string(niti_rounding_name(o->rounding.mode)));
  int32_t *narrow = (int32_t *)sums; /* in place: element k ends before element k + 1 begins */
  for (size_t k = 0; k < count; ++k) narrow[k] = (int32_t)sums[k];
  NITI_TRY(put_array(r, "accumulators", i, output, "int32", narrow, false));
  return niti_rounding_draws(o->rounding.mode) ? put_words(r, i, output, o->rounding.mode) : NITI_OK;
}

static NitiStatus put_sums(NitiRecord *r, int32_t i, const NitiSumOperands *in, int32_t output, const void *out) {
  const NitiOperation *o = &r->program->operations[i];
  const size_t count = elements(r, output);
  int64_t *sums = calloc(count + 1, sizeof *sums);
  if (!sums) return out_of_memory();
  if (!niti_sums(sums, o, in, count, r->program->batch)) {
    free(sums);
    return out_of_memory();
  }
  const uint64_t max = niti_record_largest(sums, count);
  json_object_set_new(r->current, "max", json_integer((json_int_t)max));
  const NitiStatus status = o->opcode == NITI_OP_CONV_GRADIENT ? NITI_OK : put_rounding(r, i, sums, output, max, out);
  free(sums);
  return status;
}

/* An update's shift and the steps that it subtracts. */
static NitiStatus put_update(NitiRecord *r, int32_t i, const void *gradient) {
  const int32_t tensor = r->program->operations[i].inputs[1];
  const NitiTensorDesc *t = &r->program->tensors[tensor];
  const size_t count = niti_tensor_count(t, 0);
  const int mu = (int)(r->bindings.scalars[r->program->operations[i].scalar] / NITI_MU_UNITS);
  int64_t *sums = calloc(count, sizeof *sums);
  int8_t *steps = calloc(count, 1);
  NitiStatus status = sums && steps ? NITI_OK : out_of_memory();
  for (size_t k = 0; k < count && status == NITI_OK; ++k)
    sums[k] = t->dtype == NITI_DTYPE_S64 ? ((const int64_t *)gradient)[k] : ((const int32_t *)gradient)[k];
  if (status == NITI_OK) {
    const uint64_t max = niti_record_largest(sums, count);
    const int bits = niti_bits(max), shift = bits - mu;
    for (size_t k = 0; k < count && bits > 0; ++k)
      steps[k] = niti_round_int8(sums[k], shift < 1 ? 0 : shift, NITI_PSEUDO_STOCHASTIC, 0);
    json_object_update_new(r->current,
                           json_pack("{s:I, s:i, s:i, s:i}", "max", (json_int_t)max, "bits", bits, "mu", mu, "shift", shift));
    status = put_array(r, "steps", i, tensor, "int8", steps, false);
  }
  free(sums);
  free(steps);
  return status;
}

/* ---- attributes ---- */

static json_t *window_of(int32_t kh, int32_t kw, int32_t sh, int32_t sw, int32_t ph, int32_t pw) {
  return json_pack("{s:[i,i], s:[i,i], s:[i,i]}", "kernel", kh, kw, "stride", sh, sw, "padding", ph, pw);
}

static json_t *conv_attributes(const NitiRecord *r, const NitiOperation *o) {
  const NitiConv *c = &o->conv;
  json_t *out = window_of(c->kh, c->kw, c->stride_h, c->stride_w, c->pad_h, c->pad_w);
  if (niti_conv_grouped(c)) json_object_set_new(out, "groups", json_integer(c->groups));
  if (o->opcode == NITI_OP_CONV_FORWARD && o->inputs[2] != NITI_NONE)
    json_object_set_new(out, "centred", json_boolean(niti_conv_is_centred(r->program, o)));
  return out;
}

/* A product's gradient has the exponents of the product's operands; another has its own. */
static int32_t gradient_exponent(const NitiRecord *r, int32_t gradient) {
  int32_t exponents[2] = {0, 0};
  (void)niti_executable_read(r->executable, gradient, 0, NULL, exponents);
  for (int32_t i = 0; i < r->program->operation_count; ++i) {
    const NitiOperation *o = &r->program->operations[i];
    if (o->opcode != NITI_OP_CONV_GRADIENT || o->outputs[0] != gradient) continue;
    for (int k = 0; k < 2; ++k) (void)niti_executable_read(r->executable, o->inputs[k], 0, NULL, &exponents[k]);
  }
  return exponents[0] + exponents[1];
}

static void put_scalar(const NitiRecord *r, json_t *out, const char *key, int32_t scalar) {
  if (scalar != NITI_NONE) json_object_set_new(out, key, json_integer((json_int_t)r->bindings.scalars[scalar]));
}

static json_t *update_attributes(const NitiRecord *r, const NitiOperation *o) {
  json_t *out = json_pack("{s:b, s:i}", "nesterov", o->sgd.nesterov, "gradient_exponent", gradient_exponent(r, o->inputs[1]));
  put_scalar(r, out, "rate", o->sgd.rate);
  put_scalar(r, out, "momentum", o->sgd.momentum);
  put_scalar(r, out, "decay", o->sgd.decay);
  put_scalar(r, out, "images", o->sgd.images);
  put_scalar(r, out, "clip_norm", o->sgd.clip);
  return out;
}

static json_t *attributes_of(const NitiRecord *r, const NitiOperation *o) {
  const NitiPool *p = &o->pool;
  switch (o->opcode) {
    case NITI_OP_CONV_FORWARD:
    case NITI_OP_CONV_BACKWARD:
    case NITI_OP_CONV_GRADIENT: return conv_attributes(r, o);
    case NITI_OP_MAXPOOL_FORWARD:
    case NITI_OP_MAXPOOL_BACKWARD:
    case NITI_OP_AVGPOOL_FORWARD:
    case NITI_OP_AVGPOOL_BACKWARD: return window_of(p->kh, p->kw, p->stride_h, p->stride_w, p->pad_h, p->pad_w);
    case NITI_OP_RELU_FORWARD:
    case NITI_OP_RELU_BACKWARD: return json_pack("{s:i}", "max", o->relu_max);
    case NITI_OP_LOSS: return json_pack("{s:s, s:i}", "loss", niti_export_is_softmax(o) ? "softmax" : "niti", "off", o->loss.off);
    case NITI_OP_DROPOUT: return json_pack("{s:b, s:i}", "shared_mask", niti_export_shares_mask(o), "rate", o->dropout.rate);
    case NITI_OP_NORM_FIT: return json_pack("{s:b, s:b}", "running", o->norm.running, "centred", o->norm.centred);
    case NITI_OP_GRADIENT_SQUARES: return json_pack("{s:i}", "gradient_exponent", gradient_exponent(r, o->inputs[1]));
    case NITI_OP_UPDATE_NITI16:
    case NITI_OP_UPDATE_SGD: return update_attributes(r, o);
    default: return json_object();
  }
}

/* ---- operations ---- */

static NitiStatus put_inputs(NitiRecord *r, int32_t i, void **data, NitiSumOperands *in) {
  const NitiOperation *o = &r->program->operations[i];
  json_t *entries = json_array();
  if (json_object_set_new(r->current, "inputs", entries) != 0) return out_of_memory();
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->inputs[k] == NITI_NONE) continue;
    NITI_TRY(read_tensor(&data[k], &in->exponent[k], r, o->inputs[k]));
    in->input[k] = data[k];
    NITI_TRY(put_tensor(r, entries, i, o->inputs[k], data[k], in->exponent[k], false));
  }
  return NITI_OK;
}

/* Whether it draws words that do not round its accumulators. */
static bool draws(const NitiOperation *o) {
  return o->opcode == NITI_OP_DROPOUT || (o->opcode == NITI_OP_LOSS && !niti_export_is_softmax(o));
}

static bool reads(const NitiOperation *o, int32_t tensor) {
  bool found = false;
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) found |= o->inputs[k] == tensor;
  return found;
}

static NitiStatus put_output(NitiRecord *r, int32_t i, int32_t tensor, const NitiSumOperands *in, json_t *entries) {
  const NitiOperation *o = &r->program->operations[i];
  const NitiRole role = r->program->tensors[tensor].role;
  const bool rounded = role != NITI_ROLE_METRIC && role != NITI_ROLE_SAVED;
  void *data = NULL;
  int32_t exponent = 0;
  NitiStatus status = read_tensor(&data, &exponent, r, tensor);
  if (status == NITI_OK) status = put_tensor(r, entries, i, tensor, data, exponent, reads(o, tensor));
  if (status == NITI_OK && rounded && niti_has_sums(o)) status = put_sums(r, i, in, tensor, data);
  if (status == NITI_OK && rounded && draws(o)) status = put_words(r, i, tensor, NITI_STOCHASTIC);
  free(data);
  return status;
}

static NitiStatus put_outputs(NitiRecord *r, int32_t i, const NitiSumOperands *in) {
  const NitiOperation *o = &r->program->operations[i];
  json_t *entries = json_array();
  if (json_object_set_new(r->current, "outputs", entries) != 0) return out_of_memory();
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->outputs[k] != NITI_NONE) NITI_TRY(put_output(r, i, o->outputs[k], in, entries));
  }
  if (o->opcode == NITI_OP_UPDATE_NITI) return put_update(r, i, in->input[1]);
  return o->opcode == NITI_OP_UPDATE_SGD || o->opcode == NITI_OP_UPDATE_NITI16 ? put_words(r, i, o->outputs[0], NITI_STOCHASTIC)
                                                                               : NITI_OK;
}

static void forget_outputs(NitiRecord *r, int32_t i) {
  const NitiOperation *o = &r->program->operations[i];
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) {
    if (o->outputs[k] != NITI_NONE) r->files[o->outputs[k]][0] = 0;
  }
}

static NitiStatus run(NitiRecord *r, int32_t i) {
  const NitiStatus status = niti_executable_run(r->executable, i, i + 1, &r->bindings);
  forget_outputs(r, i);
  return status;
}

static NitiStatus write_operation(NitiRecord *r, int32_t i) {
  const NitiOperation *o = &r->program->operations[i];
  NitiSumOperands in = {.labels = r->labels, .centred = niti_conv_is_centred(r->program, o)};
  void *data[NITI_OPERANDS_MAX] = {NULL};
  r->current = json_pack("{s:I, s:i, s:s, s:s, s:s, s:o}", "step", (json_int_t)r->bindings.step, "operation", i, "opcode",
                         niti_opcodes[o->opcode].name, "phase", niti_phase_name(o->phase), "layer",
                         o->layer > 0 ? r->program->layers[o->layer] : "", "attributes", attributes_of(r, o));
  NITI_TRY(niti_record_add(r, r->current));
  if (r->directed) json_object_set_new(r->current, "case", json_string(r->directed));
  NitiStatus status = put_inputs(r, i, data, &in);
  if (status == NITI_OK) status = run(r, i);
  if (status == NITI_OK) status = put_outputs(r, i, &in);
  for (int k = 0; k < NITI_OPERANDS_MAX; ++k) free(data[k]);
  ++r->count;
  return status;
}

NitiStatus niti_record_operation(NitiRecord *r, int32_t i) {
  return niti_record_wants(r, niti_opcodes[r->program->operations[i].opcode].name) ? write_operation(r, i) : run(r, i);
}
