/* Reads and writes safetensors files. */
#include "io/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "platform/bytes.h"
#include "platform/json.h"
#include "platform/system.h"
#include "platform/text.h"

static const char *const dtype_names[] = {"I8", "I16", "I32", "I64", "8 bits", "16 bits", "32 bits", "64 bits"};

/* Names in files. */
static const struct {
  const char *name;
  NitiFileDtype dtype;
} dtypes[] = {
    {"I8", NITI_I8},         {"I16", NITI_I16},       {"I32", NITI_I32},          {"I64", NITI_I64},
    {"BOOL", NITI_FOREIGN8}, {"U8", NITI_FOREIGN8},   {"F8_E4M3", NITI_FOREIGN8}, {"F8_E5M2", NITI_FOREIGN8},
    {"U16", NITI_FOREIGN16}, {"F16", NITI_FOREIGN16}, {"BF16", NITI_FOREIGN16},   {"U32", NITI_FOREIGN32},
    {"F32", NITI_FOREIGN32}, {"U64", NITI_FOREIGN64}, {"F64", NITI_FOREIGN64},    {"C64", NITI_FOREIGN64},
};
enum { HEADER_DEPTH = 3 /* the header, a tensor, its shape */ };
static const char metadata_key[] = "__metadata__";

const char *niti_file_dtype_name(NitiFileDtype dtype) { return dtype_names[dtype]; }

NitiStatus niti_safetensor_bytes(size_t *bytes, const NitiSafetensor *tensor) {
  uint64_t product = niti_dtype_size(tensor->dtype);
  *bytes = 0;
  if (tensor->ndim < 0 || tensor->ndim > NITI_DIMS_MAX)
    return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s': %d dimensions, at most %d expected", tensor->name, (int)tensor->ndim,
                     NITI_DIMS_MAX);
  for (int i = 0; i < tensor->ndim; ++i)
    if (tensor->dims[i] == 0) return NITI_OK;
  for (int i = 0; i < tensor->ndim; ++i)
    if (__builtin_mul_overflow(product, tensor->dims[i], &product) || product > PTRDIFF_MAX)
      return niti_fail(NITI_ERROR_FORMAT, "tensor '%.200s': its shape has more elements than memory can hold", tensor->name);
  *bytes = (size_t)product;
  return NITI_OK;
}

/* ---- Writing ------------------------------------------------------------------------------------------------------ */

static int compare_layout(const void *a, const void *b) {
  const NitiSafetensor *x = *(NitiSafetensor *const *)a, *y = *(NitiSafetensor *const *)b;
  if (x->dtype != y->dtype) return x->dtype > y->dtype ? -1 : 1;
  return strcmp(x->name, y->name);
}

/* Adds value to object under a key that must be new; takes the reference to value, which may be NULL. */
static NitiStatus set_new(json_t *object, const char *key, json_t *value, const char *path) {
  if (!key || json_object_get(object, key)) {
    json_decref(value);
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: the name '%.200s' is there twice or missing", path, key ? key : "");
  }
  if (!niti_text_is_utf8(key)) {
    json_decref(value);
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: cannot store '%.200s': not UTF-8", path, key);
  }
  if (json_object_set_new(object, key, value)) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for '%.200s'", path, key);
  return NITI_OK;
}

static NitiStatus describe_metadata(json_t *header, const NitiSafetensors *content, const char *path) {
  json_t *metadata = json_object();
  NitiStatus status = NITI_OK;
  for (size_t i = 0; i < content->metadata_count && status == NITI_OK; ++i) {
    const NitiPair *pair = &content->metadata[i];
    if (!niti_text_is_utf8(pair->value))
      status = niti_fail(NITI_ERROR_ARGUMENT, "%s: cannot store '%.200s': its value is not UTF-8", path, pair->key);
    if (status == NITI_OK) status = set_new(metadata, pair->key, json_string(pair->value), path);
  }
  if (status == NITI_OK && content->metadata_count) return set_new(header, metadata_key, metadata, path);
  json_decref(metadata);
  return status;
}

static NitiStatus describe_tensors(json_t *header, NitiSafetensor *const *order, size_t count, const char *path) {
  uint64_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    const NitiSafetensor *tensor = order[i];
    size_t bytes;
    if (!tensor->name[0] || !strcmp(tensor->name, metadata_key))
      return niti_fail(NITI_ERROR_ARGUMENT, "%s: '%s' cannot be a tensor's name", path, tensor->name);
    NITI_TRY(niti_safetensor_bytes(&bytes, tensor));
    json_t *shape = json_array();
    for (int d = 0; d < tensor->ndim; ++d)
      if (json_array_append_new(shape, json_integer(tensor->dims[d]))) {
        json_decref(shape);
        return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
      }
    NITI_TRY(set_new(header, tensor->name,
                     json_pack("{s:s, s:o, s:[I, I]}", "dtype", niti_file_dtype_name(tensor->dtype), "shape", shape,
                               "data_offsets", (json_int_t)offset, (json_int_t)(offset + bytes)),
                     path));
    offset += bytes;
  }
  return NITI_OK;
}

static NitiStatus write_header(NitiFile *file, const json_t *header) {
  char *text = niti_json_text(header, JSON_COMPACT);
  if (!text) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", niti_file_path(file));
  const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
  uint8_t size[8];
  for (int i = 0; i < 8; ++i) size[i] = (uint8_t)((uint64_t)padded >> (8 * i));
  NitiStatus status = NITI_OK;
  if (padded > NITI_SAFETENSORS_HEADER_MAX)
    status = niti_fail(NITI_ERROR_ARGUMENT, "%s: a header of %zu bytes, at most %d allowed", niti_file_path(file), padded,
                       NITI_SAFETENSORS_HEADER_MAX);
  if (status == NITI_OK) status = niti_file_write(file, size, sizeof size);
  if (status == NITI_OK) status = niti_file_write(file, text, length);
  if (status == NITI_OK) status = niti_file_write(file, "        ", padded - length);
  free(text);
  return status;
}

static NitiStatus write_tensor(NitiFile *file, const NitiSafetensor *tensor) {
  const size_t size = niti_dtype_size(tensor->dtype);
  uint8_t buffer[NITI_BYTES_PIECE];
  size_t bytes;
  NITI_TRY(niti_safetensor_bytes(&bytes, tensor));
  for (size_t at = 0, count = 0; at < bytes; at += count) {
    const uint8_t *piece = niti_bytes_piece(&count, buffer, tensor->data, at, bytes, size);
    NITI_TRY(niti_file_write(file, piece, count));
  }
  return NITI_OK;
}

NitiStatus niti_safetensors_write(NitiFile *file, const NitiSafetensors *content) {
  const char *path = niti_file_path(file);
  json_t *header = json_object();
  NitiSafetensor **order = calloc(content->count + 1, sizeof *order);
  NitiStatus status = header && order ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  if (status == NITI_OK) {
    for (size_t i = 0; i < content->count; ++i) order[i] = &content->tensors[i];
    qsort(order, content->count, sizeof *order, compare_layout);
    status = describe_metadata(header, content, path);
  }
  if (status == NITI_OK) status = describe_tensors(header, order, content->count, path);
  if (status == NITI_OK) status = write_header(file, header);
  for (size_t i = 0; i < content->count && status == NITI_OK; ++i) status = write_tensor(file, order[i]);
  json_decref(header);
  free(order);
  return status;
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

typedef struct Span {
  uint64_t begin, end; /* of a tensor, from the start of the data */
  NitiSafetensor tensor;
} Span;

/* Whether a text can be shown in a message of one line. */
static bool is_plain(const char *text) {
  for (; *text; ++text)
    if ((unsigned char)*text < 32 || *text == 127) return false;
  return true;
}

static NitiStatus fail_tensor(const char *path, const char *name, const char *why) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%.200s': %s", path, name, why);
}

static NitiStatus read_at(int fd, void *out, size_t size, uint64_t offset, const char *path) {
  char *bytes = out;
  while (size) {
    const size_t part = size < (size_t)1 << 24 ? size : (size_t)1 << 24;
    NITI_TRY(niti_file_go_on(path));
    const ssize_t done = niti_system.pread(fd, bytes, part, (off_t)offset);
    if (done < 0) return niti_fail_errno(path, "read");
    if (done == 0) return niti_fail(NITI_ERROR_FORMAT, "%s: ends at byte %llu", path, (unsigned long long)offset);
    bytes += done;
    size -= (size_t)done;
    offset += (uint64_t)done;
  }
  return NITI_OK;
}

static NitiStatus parse_metadata(NitiSafetensors *out, const json_t *object, const char *path) {
  if (!json_is_object(object)) return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: an object of strings expected", path);
  out->metadata = calloc(json_object_size(object) + 1, sizeof *out->metadata);
  if (!out->metadata) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)object, key, value) {
    if (!is_plain(key)) return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: a key has control characters", path);
    if (!json_is_string(value)) return niti_fail(NITI_ERROR_FORMAT, "%s: __metadata__: '%.200s': a string expected", path, key);
    NitiPair *pair = &out->metadata[out->metadata_count++];
    pair->key = strdup(key);
    pair->value = strdup(json_string_value(value));
    if (!pair->key || !pair->value) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  }
  return NITI_OK;
}

static NitiStatus parse_dtype(NitiFileDtype *out, const json_t *value, const char *name, const char *path) {
  const char *text = json_is_string(value) ? json_string_value(value) : "";
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; ++i)
    if (!strcmp(text, dtypes[i].name)) {
      *out = dtypes[i].dtype;
      return NITI_OK;
    }
  return fail_tensor(path, name, "dtype: I8, I16, I32, I64 or another of the format's expected");
}

static NitiStatus parse_shape(NitiSafetensor *tensor, const json_t *shape, const char *path) {
  if (!json_is_array(shape) || json_array_size(shape) > NITI_DIMS_MAX)
    return fail_tensor(path, tensor->name, "shape: an array of at most 8 dimensions expected");
  tensor->ndim = (int32_t)json_array_size(shape);
  for (int i = 0; i < tensor->ndim; ++i) {
    const json_t *dim = json_array_get(shape, (size_t)i);
    if (!json_is_integer(dim) || json_integer_value(dim) < 0 || json_integer_value(dim) > UINT32_MAX)
      return fail_tensor(path, tensor->name, "shape: integers in 0..4294967295 expected");
    tensor->dims[i] = (uint32_t)json_integer_value(dim);
  }
  return NITI_OK;
}

static NitiStatus parse_offsets(Span *span, const json_t *offsets, uint64_t data_bytes, const char *path) {
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1); /* NULL if not an array */
  size_t bytes;
  if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
      json_integer_value(end) < json_integer_value(begin))
    return fail_tensor(path, span->tensor.name, "data_offsets: [begin, end] with 0 <= begin <= end expected");
  span->begin = (uint64_t)json_integer_value(begin);
  span->end = (uint64_t)json_integer_value(end);
  if (span->end > data_bytes)
    return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%.200s': data_offsets: ends at byte %llu of the data, which has %llu", path,
                     span->tensor.name, (unsigned long long)span->end, (unsigned long long)data_bytes);
  const NitiStatus status = niti_safetensor_bytes(&bytes, &span->tensor);
  if (status != NITI_OK) return niti_fail_within(status, "%s", path);
  if (bytes != span->end - span->begin)
    return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%.200s': data_offsets: spans %llu bytes, its shape and dtype have %zu", path,
                     span->tensor.name, (unsigned long long)(span->end - span->begin), bytes);
  return NITI_OK;
}

static NitiStatus parse_tensor(Span *span, const char *name, const json_t *info, uint64_t data_bytes, const char *path) {
  if (!name[0] || !is_plain(name))
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte 8: a tensor has an empty name, or control characters in it", path);
  span->tensor.name = strdup(name);
  if (!span->tensor.name) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  if (!json_is_object(info)) return fail_tensor(path, name, "an object expected");
  const json_t *dtype = json_object_get(info, "dtype"), *shape = json_object_get(info, "shape");
  const json_t *offsets = json_object_get(info, "data_offsets");
  if (!dtype || !shape || !offsets || json_object_size(info) != 3)
    return fail_tensor(path, name, "exactly the keys dtype, shape and data_offsets expected");
  NITI_TRY(parse_dtype(&span->tensor.dtype, dtype, name, path));
  NITI_TRY(parse_shape(&span->tensor, shape, path));
  return parse_offsets(span, offsets, data_bytes, path);
}

static int compare_spans(const void *a, const void *b) {
  const Span *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return strcmp(x->tensor.name, y->tensor.name);
}

/* In order, each tensor must begin where the one before ended, and the last end with the file. */
static NitiStatus check_contiguous(const Span *spans, size_t count, uint64_t data_bytes, const char *path) {
  uint64_t expected = 0;
  for (size_t i = 0; i < count; ++i) {
    if (spans[i].begin != expected)
      return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%.200s': data_offsets: begins at byte %llu of the data, %llu expected",
                       path, spans[i].tensor.name, (unsigned long long)spans[i].begin, (unsigned long long)expected);
    expected = spans[i].end;
  }
  if (expected != data_bytes)
    return niti_fail(NITI_ERROR_FORMAT, "%s: %llu bytes of data belong to no tensor", path,
                     (unsigned long long)(data_bytes - expected));
  return NITI_OK;
}

static NitiStatus parse_tensors(NitiSafetensors *out, Span *spans, const json_t *header, uint64_t data_bytes, const char *path) {
  const char *name;
  json_t *info;
  size_t count = 0;
  NitiStatus status = NITI_OK;
  json_object_foreach((json_t *)header, name, info) {
    if (!strcmp(name, metadata_key))
      status = parse_metadata(out, info, path);
    else
      status = parse_tensor(&spans[count++], name, info, data_bytes, path);
    if (status != NITI_OK) break;
  }
  if (status == NITI_OK) {
    qsort(spans, count, sizeof *spans, compare_spans);
    status = check_contiguous(spans, count, data_bytes, path);
  }
  /* moved even on failure, so that the names are freed with the rest */
  for (size_t i = 0; i < count; ++i) out->tensors[out->count++] = spans[i].tensor;
  return status;
}

static NitiStatus read_tensors(NitiSafetensors *out, int fd, uint64_t start, const char *path) {
  for (size_t i = 0; i < out->count; ++i) {
    NitiSafetensor *tensor = &out->tensors[i];
    size_t bytes;
    NITI_TRY(niti_safetensor_bytes(&bytes, tensor));
    if (!bytes) continue;
    tensor->data = malloc(bytes);
    if (!tensor->data) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for tensor '%.200s'", path, tensor->name);
    NITI_TRY(read_at(fd, tensor->data, bytes, start, path));
    niti_bytes_little(tensor->data, bytes / niti_dtype_size(tensor->dtype), niti_dtype_size(tensor->dtype));
    start += bytes;
  }
  return NITI_OK;
}

static NitiStatus read_content(NitiSafetensors *out, int fd, const json_t *header, uint64_t start, uint64_t data_bytes,
                               const char *path) {
  if (!json_is_object(header)) return niti_fail(NITI_ERROR_FORMAT, "%s: byte 8: the header must be a JSON object", path);
  const size_t room = json_object_size(header) + 1;
  Span *spans = calloc(room, sizeof *spans);
  out->tensors = calloc(room, sizeof *out->tensors);
  NitiStatus status = spans && out->tensors ? parse_tensors(out, spans, header, data_bytes, path)
                                            : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  free(spans);
  if (status == NITI_OK) status = read_tensors(out, fd, start, path);
  return status;
}

/* The parser's message may quote a newline from the file. */
static NitiStatus fail_json(json_error_t *error, const char *path) {
  const bool memory = !error->text[0] || json_error_code(error) == json_error_out_of_memory;
  if (memory) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its header", path);
  for (char *at = error->text; *at; ++at)
    if ((unsigned char)*at < 32 || *at == 127) *at = '?';
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %d: header: %s", path, 8 + error->position, error->text);
}

/* Where the text of a header has the first control character, in the file; 0: nowhere. */
static uint64_t find_control(const char *text, uint64_t length) {
  unsigned all = 0;
  for (uint64_t i = 0; i < length; ++i) all |= (unsigned char)text[i] < 32; /* all of them at once: there hardly ever is one */
  for (uint64_t i = 0; i < length && all; ++i)
    if ((unsigned char)text[i] < 32) return 8 + i;
  return 0;
}

static NitiStatus read_header(json_t **header, uint64_t *length, uint64_t *control, int fd, uint64_t file_bytes,
                              const char *path) {
  uint8_t size[8];
  if (file_bytes < sizeof size)
    return niti_fail(NITI_ERROR_FORMAT, "%s: has %llu bytes, a safetensors file has at least 8", path,
                     (unsigned long long)file_bytes);
  NITI_TRY(read_at(fd, size, sizeof size, 0, path));
  *length = 0;
  for (int i = 0; i < 8; ++i) *length |= (uint64_t)size[i] << (8 * i);
  if (*length > file_bytes - sizeof size || *length > NITI_SAFETENSORS_HEADER_MAX)
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: byte 0: not a safetensors file: a header of %llu bytes, but the file has %llu and at most %d are read",
                     path, (unsigned long long)*length, (unsigned long long)file_bytes, NITI_SAFETENSORS_HEADER_MAX);
  char *text = malloc((size_t)*length + 1);
  if (!text) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its header", path);
  text[*length] = 0;
  NitiStatus status = read_at(fd, text, (size_t)*length, sizeof size, path);
  if (status == NITI_OK)
    status = niti_json_check(text, (size_t)*length, HEADER_DEPTH, NITI_JSON_HEADER_VALUES, sizeof size, path);
  if (status == NITI_OK) {
    json_error_t error;
    *control = find_control(text, *length);
    *header = *length && text[0] == '{' ? json_loadb(text, (size_t)*length, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (!*length || text[0] != '{')
      status = niti_fail(NITI_ERROR_FORMAT, "%s: byte 8: the header must begin with '{'", path);
    else if (!*header)
      status = fail_json(&error, path);
  }
  free(text);
  return status;
}

static NitiStatus read_open(NitiSafetensors *out, int fd, uint64_t file_bytes, const char *path) {
  json_t *header = NULL;
  uint64_t length;
  NITI_TRY(read_header(&header, &length, &out->control, fd, file_bytes, path));
  out->bytes = file_bytes;
  const NitiStatus status = read_content(out, fd, header, 8 + length, file_bytes - 8 - length, path);
  json_decref(header);
  return status;
}

NitiStatus niti_safetensors_read(NitiSafetensors *out, const char *path) {
  int fd;
  uint64_t bytes = 0;
  memset(out, 0, sizeof *out);
  NITI_TRY(niti_file_open_read(&fd, &bytes, path));
  const NitiStatus status = read_open(out, fd, bytes, path);
  (void)niti_system.close(fd);
  if (status != NITI_OK) niti_safetensors_clear(out);
  return status;
}

void niti_safetensors_clear(NitiSafetensors *content) {
  for (size_t i = 0; i < content->count; ++i) {
    free(content->tensors[i].name);
    free(content->tensors[i].data);
  }
  for (size_t i = 0; i < content->metadata_count; ++i) {
    free(content->metadata[i].key);
    free(content->metadata[i].value);
  }
  free(content->tensors);
  free(content->metadata);
  memset(content, 0, sizeof *content);
}
