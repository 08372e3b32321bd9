/* Checkpoints: in memory, saving, loading and verification. */
#include "io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/hash.h"
#include "platform/bytes.h"
#include "platform/path.h"
#include "platform/sha256.h"
#include "platform/text.h"

static const char exponent_suffix[] = ".exponent";
static const char escaped_suffix[] = ".escaped";
static const char format_name[] = "niti";

static const char *const own_keys[] = {"format", "version", "hash", "checksum"};
enum { OWN_KEYS = sizeof own_keys / sizeof *own_keys };

static NitiStatus fail_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a checkpoint"); }

static bool is_own_key(const char *key) {
  for (int i = 0; i < OWN_KEYS; ++i)
    if (!strcmp(key, own_keys[i])) return true;
  return false;
}

/* The bytes of KEY in KEY.escaped; 0: it is no such key. */
static size_t escaped_length(const char *key) {
  const size_t length = strlen(key), suffix = sizeof escaped_suffix - 1;
  return length > suffix && !strcmp(key + length - suffix, escaped_suffix) ? length - suffix : 0;
}

static bool is_reserved(const char *key) { return is_own_key(key) || escaped_length(key) > 0; }

static bool is_exponent(const char *name) {
  const size_t length = strlen(name), suffix = sizeof exponent_suffix - 1;
  return length >= suffix && !strcmp(name + length - suffix, exponent_suffix);
}

static char *append_text(const char *name, const char *suffix) {
  const size_t size = strlen(name) + strlen(suffix) + 1;
  char *text = malloc(size);
  if (text) (void)snprintf(text, size, "%s%s", name, suffix);
  return text;
}

static char *exponent_name(const char *name) { return append_text(name, exponent_suffix); }

/* ---- In memory ---------------------------------------------------------------------------------------------------- */

NitiStatus niti_checkpoint_open(NitiCheckpoint **out) {
  *out = calloc(1, sizeof **out);
  return *out ? NITI_OK : fail_memory();
}

void niti_checkpoint_close(NitiCheckpoint *checkpoint) {
  if (!checkpoint) return;
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) {
    free(checkpoint->tensors[i].name);
    if (checkpoint->tensors[i].owned) free(checkpoint->tensors[i].data);
  }
  for (size_t i = 0; i < checkpoint->value_count; ++i) {
    free(checkpoint->values[i].key);
    free(checkpoint->values[i].value);
  }
  free(checkpoint->tensors);
  free(checkpoint->values);
  free(checkpoint->source);
  free(checkpoint);
}

NitiStatus niti_checkpoint_add(NitiCheckpoint *checkpoint, const char *name, NitiFileDtype dtype, int ndim, const uint32_t *dims,
                               int32_t exponent, void *data) {
  if (!name[0] || is_exponent(name) || niti_checkpoint_find(checkpoint, name))
    return niti_fail(NITI_ERROR_ARGUMENT, "checkpoint: a tensor cannot be called '%.200s': empty, reserved or taken", name);
  if (ndim < 0 || ndim > NITI_DIMS_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "checkpoint: tensor '%.200s': %d dimensions, 0..%d expected", name, ndim,
                     NITI_DIMS_MAX);
  NitiCheckpointTensor tensor = {.dtype = dtype, .ndim = ndim, .exponent = exponent, .data = data};
  for (int i = 0; i < ndim; ++i) tensor.dims[i] = dims[i];
  NitiCheckpointTensor *tensors = realloc(checkpoint->tensors, (checkpoint->tensor_count + 1) * sizeof *tensors);
  if (!tensors) return fail_memory();
  checkpoint->tensors = tensors;
  tensor.name = strdup(name);
  if (!tensor.name) return fail_memory();
  tensors[checkpoint->tensor_count++] = tensor;
  return NITI_OK;
}

const NitiCheckpointTensor *niti_checkpoint_find(const NitiCheckpoint *checkpoint, const char *name) {
  for (size_t i = 0; i < checkpoint->tensor_count; ++i)
    if (!strcmp(checkpoint->tensors[i].name, name)) return &checkpoint->tensors[i];
  return NULL;
}

static NitiStatus replace_text(char **text, const char *value) {
  char *copy = strdup(value);
  if (!copy) return fail_memory();
  free(*text);
  *text = copy;
  return NITI_OK;
}

static NitiStatus append_pair(NitiPair **pairs, size_t *count, const char *key, const char *value) {
  NitiPair *grown = realloc(*pairs, (*count + 1) * sizeof *grown);
  if (!grown) return fail_memory();
  *pairs = grown;
  const NitiPair pair = {strdup(key), strdup(value)};
  if (!pair.key || !pair.value) {
    free(pair.key);
    free(pair.value);
    return fail_memory();
  }
  grown[(*count)++] = pair;
  return NITI_OK;
}

NitiStatus niti_checkpoint_set(NitiCheckpoint *checkpoint, const char *key, const char *value) {
  if (is_reserved(key)) return niti_fail(NITI_ERROR_ARGUMENT, "checkpoint: the key '%s' is the format's own", key);
  for (size_t i = 0; i < checkpoint->value_count; ++i)
    if (!strcmp(checkpoint->values[i].key, key)) return replace_text(&checkpoint->values[i].value, value);
  return append_pair(&checkpoint->values, &checkpoint->value_count, key, value);
}

const char *niti_checkpoint_get(const NitiCheckpoint *checkpoint, const char *key) {
  for (size_t i = 0; i < checkpoint->value_count; ++i)
    if (!strcmp(checkpoint->values[i].key, key)) return checkpoint->values[i].value;
  return NULL;
}

NitiStatus niti_checkpoint_want(const char **value, const NitiCheckpoint *checkpoint, const char *key) {
  *value = niti_checkpoint_get(checkpoint, key);
  if (*value) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%s' is missing", niti_checkpoint_source(checkpoint), key);
}

const char *niti_checkpoint_source(const NitiCheckpoint *checkpoint) {
  return checkpoint->source ? checkpoint->source : "checkpoint";
}

/* ---- Hash and checksum -------------------------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b) {
  return strcmp((*(NitiCheckpointTensor *const *)a)->name, (*(NitiCheckpointTensor *const *)b)->name);
}

NitiStatus niti_checkpoint_hash(const NitiCheckpoint *checkpoint, char text[65]) {
  const NitiCheckpointTensor **order = calloc(checkpoint->tensor_count + 1, sizeof *order);
  NitiHash *hash = NULL;
  if (!order) return fail_memory();
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) order[i] = &checkpoint->tensors[i];
  qsort(order, checkpoint->tensor_count, sizeof *order, compare_entries);
  const NitiStatus status = niti_hash_open(&hash);
  for (size_t i = 0; i < checkpoint->tensor_count && status == NITI_OK; ++i) {
    const NitiCheckpointTensor *tensor = order[i];
    if (tensor->dtype != NITI_I32)
      niti_hash_tensor(hash, tensor->name, tensor->ndim, tensor->dims, tensor->exponent, tensor->data,
                       niti_dtype_size(tensor->dtype));
  }
  if (status == NITI_OK) niti_hash_close(hash, text);
  free(order);
  return status;
}

static int compare_tensors(const void *a, const void *b) {
  return strcmp(((const NitiSafetensor *)a)->name, ((const NitiSafetensor *)b)->name);
}

static int compare_pairs(const void *a, const void *b) { return strcmp(((const NitiPair *)a)->key, ((const NitiPair *)b)->key); }

static void sort_content(NitiSafetensors *content) {
  if (content->count) qsort(content->tensors, content->count, sizeof *content->tensors, compare_tensors);
  if (content->metadata_count) qsort(content->metadata, content->metadata_count, sizeof *content->metadata, compare_pairs);
}

/* SHA-256 over sorted content: keys and values, each with its zero byte; then of each tensor its name and dtype with theirs, its
 * shape as decimal numbers with theirs, an empty string, and its data. */
static NitiStatus sum_content(char text[65], const NitiSafetensors *content) {
  uint8_t buffer[NITI_BYTES_PIECE];
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  for (size_t i = 0; i < content->metadata_count; ++i) {
    if (!strcmp(content->metadata[i].key, "checksum")) continue;
    niti_sha256_add_text(&sha, content->metadata[i].key);
    niti_sha256_add_text(&sha, content->metadata[i].value);
  }
  for (size_t i = 0; i < content->count; ++i) {
    const NitiSafetensor *tensor = &content->tensors[i];
    size_t bytes;
    NITI_TRY(niti_safetensor_bytes(&bytes, tensor));
    niti_sha256_add_text(&sha, tensor->name);
    niti_sha256_add_text(&sha, niti_file_dtype_name(tensor->dtype));
    for (int d = 0; d < tensor->ndim; ++d) {
      char number[16];
      (void)snprintf(number, sizeof number, "%lu", (unsigned long)tensor->dims[d]);
      niti_sha256_add_text(&sha, number);
    }
    niti_sha256_add_text(&sha, "");
    for (size_t at = 0, count = 0; at < bytes; at += count) {
      const uint8_t *piece = niti_bytes_piece(&count, buffer, tensor->data, at, bytes, niti_dtype_size(tensor->dtype));
      niti_sha256_add(&sha, piece, count);
    }
  }
  niti_sha256_end(&sha, text);
  return NITI_OK;
}

/* ---- Saving ------------------------------------------------------------------------------------------------------- */

static NitiStatus put_value(NitiSafetensors *content, const NitiPair *pair) {
  if (niti_text_is_utf8(pair->value)) return append_pair(&content->metadata, &content->metadata_count, pair->key, pair->value);
  char *key = append_text(pair->key, escaped_suffix), *value = niti_text_escaped(pair->value);
  const NitiStatus status = key && value ? append_pair(&content->metadata, &content->metadata_count, key, value) : fail_memory();
  free(key);
  free(value);
  return status;
}

static NitiStatus gather_metadata(NitiSafetensors *content, const NitiCheckpoint *checkpoint) {
  NitiPair **pairs = &content->metadata;
  size_t *count = &content->metadata_count;
  char text[65];
  NITI_TRY(append_pair(pairs, count, "format", format_name));
  (void)snprintf(text, sizeof text, "%d", NITI_CHECKPOINT_VERSION);
  NITI_TRY(append_pair(pairs, count, "version", text));
  for (size_t i = 0; i < checkpoint->value_count; ++i) NITI_TRY(put_value(content, &checkpoint->values[i]));
  NITI_TRY(niti_checkpoint_hash(checkpoint, text));
  NITI_TRY(append_pair(pairs, count, "hash", text));
  sort_content(content);
  NITI_TRY(sum_content(text, content));
  return append_pair(pairs, count, "checksum", text);
}

static NitiStatus check_mantissas(const char *name, NitiFileDtype dtype, const void *data, size_t bytes) {
  const char *bad = dtype == NITI_I8 && bytes ? memchr(data, 0x80, bytes) : NULL;
  if (!bad) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s': element %zu is -128, mantissas are in -127..127", name,
                   (size_t)(bad - (const char *)data));
}

/* The container's view of the checkpoint: names and metadata owned, tensor data borrowed. */
static NitiStatus gather(NitiSafetensors *content, const NitiCheckpoint *checkpoint) {
  content->tensors = calloc(2 * checkpoint->tensor_count + 1, sizeof *content->tensors);
  if (!content->tensors) return fail_memory();
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) {
    NitiCheckpointTensor *tensor = &checkpoint->tensors[i];
    NitiSafetensor *mantissas = &content->tensors[content->count++], *exponent = &content->tensors[content->count++];
    mantissas->name = strdup(tensor->name);
    mantissas->dtype = tensor->dtype;
    mantissas->ndim = tensor->ndim;
    memcpy(mantissas->dims, tensor->dims, sizeof mantissas->dims);
    mantissas->data = tensor->data;
    exponent->name = exponent_name(tensor->name);
    exponent->dtype = NITI_I32;
    exponent->data = &tensor->exponent;
    if (!mantissas->name || !exponent->name) return fail_memory();
    size_t bytes;
    NITI_TRY(niti_safetensor_bytes(&bytes, mantissas));
    NITI_TRY(check_mantissas(tensor->name, tensor->dtype, tensor->data, bytes));
  }
  return gather_metadata(content, checkpoint);
}

static void release_view(NitiSafetensors *content) {
  for (size_t i = 0; i < content->count; ++i) content->tensors[i].data = NULL; /* borrowed */
  niti_safetensors_clear(content);
}

/* The same, for saving at `path`. */
static NitiStatus gather_for(NitiSafetensors *content, const NitiCheckpoint *checkpoint, const char *path) {
  const NitiStatus status = gather(content, checkpoint);
  if (status == NITI_OK) return NITI_OK;
  return niti_fail_within(status == NITI_ERROR_FORMAT ? NITI_ERROR_ARGUMENT : status, "%s", path);
}

static NitiStatus ask(const NitiSaveGuard *guard) { return guard ? guard->check(guard->context) : NITI_OK; }

static NitiStatus write_content(const NitiSafetensors *content, const char *path, const char *keep, const NitiSaveGuard *guard) {
  NitiFile *file = NULL;
  NITI_TRY(ask(guard));
  NitiStatus status = niti_file_open(&file, path);
  if (status == NITI_OK) status = niti_safetensors_write(file, content);
  if (status == NITI_OK) status = ask(guard);
  if (status == NITI_OK) return niti_file_commit(file, keep);
  niti_file_discard(file);
  return status;
}

NitiStatus niti_checkpoint_save(const NitiCheckpoint *checkpoint, const char *path) {
  NitiSafetensors content = {0};
  NitiStatus status = gather_for(&content, checkpoint, path);
  if (status == NITI_OK) status = write_content(&content, path, NULL, NULL);
  release_view(&content);
  return status;
}

/* The paths of a run's two newest checkpoints; the caller frees both, also after a failure. */
static NitiStatus last_paths(char **last, char **previous, const char *dir) {
  *last = *previous = NULL;
  NITI_TRY(niti_path_join(last, dir, "last.safetensors"));
  return niti_path_join(previous, dir, "previous.safetensors");
}

static NitiStatus write_in(const NitiSafetensors *content, const char *dir, const char *name, const NitiSaveGuard *guard) {
  char *path;
  NITI_TRY(niti_path_join(&path, dir, name));
  const NitiStatus status = write_content(content, path, NULL, guard);
  free(path);
  return status;
}

NitiStatus niti_checkpoint_save_last(const NitiCheckpoint *checkpoint, const char *dir, const char *before, const char *after,
                                     const NitiSaveGuard *guard) {
  NitiSafetensors content = {0};
  char *last, *previous;
  NitiStatus status = last_paths(&last, &previous, dir);
  if (status == NITI_OK) status = gather_for(&content, checkpoint, last);
  if (status == NITI_OK && before) status = write_in(&content, dir, before, guard);
  if (status == NITI_OK) status = write_content(&content, last, previous, guard);
  if (status == NITI_OK && after) status = write_in(&content, dir, after, guard);
  release_view(&content);
  free(last);
  free(previous);
  return status;
}

/* ---- Loading ------------------------------------------------------------------------------------------------------ */

static const char *find_value(const NitiSafetensors *content, const char *key) {
  for (size_t i = 0; i < content->metadata_count; ++i)
    if (!strcmp(content->metadata[i].key, key)) return content->metadata[i].value;
  return NULL;
}

/* How many bytes of a value a message shows: up to the first control character, at most 64. */
static int shown(const char *value) {
  int count = 0;
  while (count < 64 && (unsigned char)value[count] >= 32 && value[count] != 127) ++count;
  return count;
}

static NitiStatus require_value(const char **value, const NitiSafetensors *content, const char *key) {
  *value = find_value(content, key);
  return *value ? NITI_OK : niti_fail(NITI_ERROR_FORMAT, "__metadata__: '%s' is missing: not a checkpoint of niti", key);
}

/* Of sorted content. A key stands for one value, so none may be there a second time in disguise. */
static NitiStatus take_value(NitiCheckpoint *checkpoint, const NitiSafetensors *content, const NitiPair *pair) {
  const size_t length = escaped_length(pair->key);
  NITI_TRY(append_pair(&checkpoint->values, &checkpoint->value_count, pair->key, pair->value));
  NitiPair *taken = &checkpoint->values[checkpoint->value_count - 1];
  if (!length) return NITI_OK;
  taken->key[length] = 0;
  if (is_reserved(taken->key) || bsearch(taken, content->metadata, content->metadata_count, sizeof *taken, compare_pairs))
    return niti_fail(
        NITI_ERROR_FORMAT,
        "__metadata__: a key cannot be '%.200s': what it stands for is reserved or taken (expected each key once, and "
        "none of the format's own)",
        pair->key);
  if (strstr(pair->value, "\\x00"))
    return niti_fail(NITI_ERROR_FORMAT, "__metadata__: '%.200s' has a zero byte (expected none)", pair->key);
  niti_text_unescape(taken->value);
  return NITI_OK;
}

static NitiStatus take_metadata(NitiCheckpoint *checkpoint, const NitiSafetensors *content) {
  const char *value;
  NITI_TRY(require_value(&value, content, "format"));
  if (strcmp(value, format_name) != 0)
    return niti_fail(NITI_ERROR_FORMAT, "__metadata__: format is '%.*s', 'niti' expected", shown(value), value);
  for (size_t i = 0; i < content->metadata_count; ++i)
    if (!is_own_key(content->metadata[i].key)) NITI_TRY(take_value(checkpoint, content, &content->metadata[i]));
  return NITI_OK;
}

/* The exponent tensor that belongs to this one of sorted content; *out NULL: none. */
static NitiStatus look_for_exponent(const NitiSafetensor **out, const NitiSafetensors *content, const char *name) {
  NitiSafetensor key = {.name = exponent_name(name)};
  *out = NULL;
  if (!key.name) return fail_memory();
  *out = bsearch(&key, content->tensors, content->count, sizeof key, compare_tensors);
  free(key.name);
  return NITI_OK;
}

static NitiStatus check_exponent(int64_t exponent, const char *name) {
  if (exponent >= -NITI_CHECKPOINT_EXPONENT_MAX && exponent <= NITI_CHECKPOINT_EXPONENT_MAX) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s': exponent %lld, expected -%d to %d", name, (long long)exponent,
                   NITI_CHECKPOINT_EXPONENT_MAX, NITI_CHECKPOINT_EXPONENT_MAX);
}

static NitiStatus find_exponent(int32_t *exponent, const NitiSafetensors *content, const char *name) {
  const NitiSafetensor *found;
  NITI_TRY(look_for_exponent(&found, content, name));
  if (!found || found->dtype != NITI_I32 || found->ndim != 0)
    return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s': its exponent, an I32 scalar called '%.200s%s', is missing", name, name,
                     exponent_suffix);
  memcpy(exponent, found->data, sizeof *exponent);
  return check_exponent(*exponent, name);
}

/* Copies a tensor of sorted content into the checkpoint, which has room for it and takes its data. */
static NitiStatus take_tensor(NitiCheckpoint *checkpoint, NitiSafetensor *from, int32_t exponent) {
  NitiCheckpointTensor tensor = {.dtype = from->dtype, .ndim = from->ndim, .exponent = exponent, .owned = true};
  size_t bytes;
  memcpy(tensor.dims, from->dims, sizeof tensor.dims);
  NITI_TRY(niti_safetensor_bytes(&bytes, from));
  if (niti_dtype_foreign(from->dtype))
    return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s': dtype: I8, I16, I32 or I64 expected", from->name);
  NITI_TRY(check_mantissas(from->name, from->dtype, from->data, bytes));
  tensor.name = strdup(from->name); /* a copy: the sorted names are still searched */
  if (!tensor.name) return fail_memory();
  tensor.data = from->data;
  from->data = NULL;
  checkpoint->tensors[checkpoint->tensor_count++] = tensor;
  return NITI_OK;
}

/* Moves the tensors of sorted content into the checkpoint. */
static NitiStatus take_tensors(NitiCheckpoint *checkpoint, NitiSafetensors *content) {
  size_t exponents = 0;
  checkpoint->tensors = calloc(content->count + 1, sizeof *checkpoint->tensors);
  if (!checkpoint->tensors) return fail_memory();
  for (size_t i = 0; i < content->count; ++i) {
    NitiSafetensor *from = &content->tensors[i];
    int32_t exponent = 0;
    if (is_exponent(from->name)) {
      ++exponents;
      continue;
    }
    NITI_TRY(find_exponent(&exponent, content, from->name));
    NITI_TRY(take_tensor(checkpoint, from, exponent));
  }
  /* each tensor has found its own exponent, so a difference means one without a tensor */
  if (exponents != checkpoint->tensor_count)
    return niti_fail(NITI_ERROR_FORMAT, "byte 8: the header has %zu exponents for %zu tensors", exponents,
                     checkpoint->tensor_count);
  return NITI_OK;
}

static NitiStatus check_sum(const char *what, const NitiSafetensors *content, const char *actual) {
  const char *stored;
  NITI_TRY(require_value(&stored, content, what));
  if (strcmp(stored, actual) != 0)
    return niti_fail(NITI_ERROR_FORMAT,
                     "the content, bytes 8 to %llu, does not have the %s that the file states: %.*s stated, %s found",
                     (unsigned long long)content->bytes, what, shown(stored), stored, actual);
  return NITI_OK;
}

/* A decimal number from 1 to this version. Checked last: only an intact file can be of a later version. */
static NitiStatus take_version(NitiCheckpoint *checkpoint, const NitiSafetensors *content, const char *sum) {
  const char *text;
  char known[16];
  NITI_TRY(require_value(&text, content, "version"));
  for (int version = 1; version <= NITI_CHECKPOINT_VERSION; ++version) {
    (void)snprintf(known, sizeof known, "%d", version);
    if (!strcmp(text, known)) checkpoint->version = version;
  }
  if (checkpoint->version) return NITI_OK;
  NITI_TRY(check_sum("checksum", content, sum));
  return niti_fail(NITI_ERROR_UNSUPPORTED, "__metadata__: version is '%.*s' (expected at most %d: a later niti wrote this file)",
                   shown(text), text, NITI_CHECKPOINT_VERSION);
}

static NitiStatus take(NitiCheckpoint *checkpoint, NitiSafetensors *content) {
  char sum[65];
  if (content->control)
    return niti_fail(NITI_ERROR_FORMAT, "byte %llu: the header has a control character, which niti writes nowhere in it",
                     (unsigned long long)content->control);
  sort_content(content);
  NITI_TRY(take_metadata(checkpoint, content));
  NITI_TRY(sum_content(sum, content));
  NITI_TRY(take_version(checkpoint, content, sum));
  NITI_TRY(take_tensors(checkpoint, content));
  char hash[65];
  NITI_TRY(niti_checkpoint_hash(checkpoint, hash));
  NITI_TRY(check_sum("hash", content, hash));
  return check_sum("checksum", content, sum);
}

/* An exponent as other tools may write it: any integer of one element. */
static NitiStatus read_exponent(int32_t *out, const NitiSafetensor *from, const char *name) {
  size_t bytes;
  int64_t value = 0;
  NITI_TRY(niti_safetensor_bytes(&bytes, from));
  if (niti_dtype_foreign(from->dtype) || bytes != niti_dtype_size(from->dtype))
    return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s%s': one integer expected (I8, I16, I32 or I64)", name, exponent_suffix);
  switch (from->dtype) {
    case NITI_I8: value = *(const int8_t *)from->data; break;
    case NITI_I16: value = *(const int16_t *)from->data; break;
    case NITI_I32: value = *(const int32_t *)from->data; break;
    default: value = *(const int64_t *)from->data; break;
  }
  NITI_TRY(check_exponent(value, name));
  *out = (int32_t)value;
  return NITI_OK;
}

static NitiStatus take_weights(NitiCheckpoint *checkpoint, NitiSafetensors *content) {
  sort_content(content);
  checkpoint->tensors = calloc(content->count + 1, sizeof *checkpoint->tensors);
  if (!checkpoint->tensors) return fail_memory();
  for (size_t i = 0; i < content->count; ++i) {
    NitiSafetensor *from = &content->tensors[i];
    const NitiSafetensor *beside;
    int32_t exponent = 0;
    if (is_exponent(from->name)) continue;
    NITI_TRY(look_for_exponent(&beside, content, from->name));
    if (!beside) continue;
    NITI_TRY(read_exponent(&exponent, beside, from->name));
    NITI_TRY(take_tensor(checkpoint, from, exponent));
  }
  if (checkpoint->tensor_count > 0) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "holds no weights (expected I8 tensors LAYER.weight, each beside its LAYER.weight%s)",
                   exponent_suffix);
}

typedef NitiStatus (*Take)(NitiCheckpoint *checkpoint, NitiSafetensors *content);

static NitiStatus load(NitiCheckpoint **out, const char *path, Take take_content) {
  NitiSafetensors content;
  *out = NULL;
  NITI_TRY(niti_safetensors_read(&content, path));
  NitiCheckpoint *checkpoint;
  NitiStatus status = niti_checkpoint_open(&checkpoint);
  if (status == NITI_OK) status = replace_text(&checkpoint->source, path);
  if (status == NITI_OK) status = take_content(checkpoint, &content);
  niti_safetensors_clear(&content);
  if (status != NITI_OK) {
    niti_checkpoint_close(checkpoint);
    return niti_fail_within(status, "%s", path);
  }
  *out = checkpoint;
  return NITI_OK;
}

NitiStatus niti_checkpoint_load(NitiCheckpoint **out, const char *path) { return load(out, path, take); }

NitiStatus niti_checkpoint_load_weights(NitiCheckpoint **out, bool *intact, const char *path) {
  const bool whole = niti_checkpoint_load(out, path) == NITI_OK;
  if (intact) *intact = whole;
  return whole ? NITI_OK : load(out, path, take_weights); /* which asks the watch again, where that stopped it */
}

/* `last` did not load: `why`, and with NITI_ERROR_FILE `there` if it may be intact. NITI_OK: `previous` takes its place. */
static NitiStatus take_previous(NitiCheckpoint **out, NitiStatus failure, bool there, const char *why, const char *previous) {
  char more[1024];
  bool unread = false; /* `previous`, which may be sound */
  const NitiStatus status = niti_checkpoint_load(out, previous);
  if (status == NITI_ERROR_MEMORY) return status;
  (void)snprintf(more, sizeof more, "%s", niti_error());
  if (status == NITI_ERROR_FILE && niti_path_is_entry(&unread, previous) != NITI_OK) unread = true;
  if (unread) return niti_fail(failure, "%s; %s", why, more);
  (void)niti_fail(failure, "%s", why);
  if (status != NITI_OK) return failure;
  if (!there) return NITI_OK;
  niti_checkpoint_close(*out);
  *out = NULL;
  return niti_fail(failure, "%s; if that stays so, remove it: another checkpoint takes its place", why);
}

NitiStatus niti_checkpoint_load_last(NitiCheckpoint **out, bool *used_previous, const char *dir) {
  char *last, *previous, why[1024];
  bool there = false;
  *out = NULL;
  if (used_previous) *used_previous = false;
  NitiStatus status = last_paths(&last, &previous, dir);
  if (status == NITI_OK) status = niti_checkpoint_load(out, last);
  if ((status == NITI_ERROR_FORMAT || status == NITI_ERROR_FILE) && last && previous) {
    (void)snprintf(why, sizeof why, "%s", niti_error());
    if (status == NITI_ERROR_FILE && niti_path_is_entry(&there, last) != NITI_OK) there = true;
    status = take_previous(out, status, there, why, previous);
    if (used_previous) *used_previous = status == NITI_OK;
  }
  free(last);
  free(previous);
  return status;
}
