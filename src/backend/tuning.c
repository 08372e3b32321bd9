/* The tuning file: JSON, with the ways of convolutions by device. Two processes may write it at once: each locks it, reads what
 * the other wrote, and replaces it whole. */
#include "backend/tuning.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/json.h"
#include "platform/path.h"
#include "platform/text.h"

enum { VERSION = 1, BYTES_MAX = 4 << 20 /* some 40,000 convolutions */, DEPTH = 4 /* the ways of a device */, NOTE_MAX = 1024 };
static const char format[] = "niti tuning";

struct NitiTuning {
  NitiTuningFacts facts;
  json_t *ways; /* of this device: its convolutions' names to names of ways; NULL: none */
  char *path, note[NOTE_MAX];
};

/* ---- what is in a file ---- */

static NitiStatus no_memory(const char *path) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path); }

/* Fails, naming file and place, where the text is not a tuning file of this version. */
static NitiStatus parse(json_t **out, const char *text, size_t size, const char *path) {
  json_error_t error;
  json_t *file = *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
  if (!file && !error.text[0]) return no_memory(path); /* jansson has no word for it */
  if (!file) return niti_fail(NITI_ERROR_FORMAT, "%s:%d: not JSON: %s", path, error.line, error.text);
  const char *name = json_string_value(json_object_get(file, "format"));
  const json_t *version = json_object_get(file, "version");
  NitiStatus status = NITI_OK;
  if (!name || strcmp(name, format) != 0)
    status = niti_fail(NITI_ERROR_FORMAT, "%s: not a tuning file (expected format \"%s\")", path, format);
  else if (json_integer_value(version) != VERSION)
    status = niti_fail(NITI_ERROR_FORMAT, "%s: a tuning file of version %lld (expected %d)", path,
                       (long long)json_integer_value(version), (int)VERSION);
  else if (!json_is_array(json_object_get(file, "devices")))
    status = niti_fail(NITI_ERROR_FORMAT, "%s: devices is not a list", path);
  if (status == NITI_OK) return NITI_OK;
  json_decref(file);
  *out = NULL;
  return status;
}

static NitiStatus read_file(json_t **out, const char *path) {
  char *text = NULL;
  size_t size = 0;
  *out = NULL;
  NITI_TRY(niti_file_read(&text, &size, path, BYTES_MAX));
  NitiStatus status = niti_json_check(text, size, DEPTH, SIZE_MAX, 0, path);
  if (status == NITI_OK) status = parse(out, text, size, path);
  free(text);
  return status;
}

static bool is_text(const json_t *entry, const char *key, const char *wanted) {
  const char *value = json_string_value(json_object_get(entry, key));
  return value && strcmp(value, wanted) == 0;
}

/* The entry of this device, whatever its build; NULL: none. */
static json_t *entry_of(const json_t *file, const NitiBackend *b) {
  const json_t *devices = json_object_get(file, "devices");
  for (size_t i = 0; i < json_array_size(devices); ++i) {
    json_t *entry = json_array_get(devices, i);
    if (is_text(entry, "hardware", b->ops->hardware(b)) && is_text(entry, "kernels", b->ops->kernels(b)) &&
        json_integer_value(json_object_get(entry, "threads")) == b->ops->threads(b))
      return entry;
  }
  return NULL;
}

/* ---- reading ---- */

/* One line, whatever the file has. */
static void __attribute__((format(printf, 2, 3))) note(NitiTuning *t, const char *format, ...) {
  va_list args;
  va_start(args, format);
  niti_text_format(t->note, sizeof t->note, format, args);
  va_end(args);
}

static void adopt(NitiTuning *t, const json_t *file, const NitiBackend *b) {
  const json_t *entry = entry_of(file, b);
  if (!entry) {
    note(t, "%s has nothing for this device (%s); `niti tune` measures it", t->path, b->ops->describe(b));
  } else if (!is_text(entry, "build", niti_kernels_digest)) {
    note(t, "%s was measured with another build of niti, so it is not used; `niti tune` measures again", t->path);
  } else if (!json_is_object(json_object_get(entry, "ways"))) {
    note(t, "%s: ways is not an object, so it is not used; `niti tune` measures again", t->path);
    t->facts.damaged = true;
  } else {
    t->ways = json_incref(json_object_get(entry, "ways"));
    t->facts.entries = (int32_t)json_object_size(t->ways);
  }
}

static void refuse(NitiTuning *t) {
  note(t, "%s; it is not used, and `niti tune` writes it anew", niti_error());
  t->facts.damaged = true;
}

NitiStatus niti_tuning_open(NitiTuning **out, const char *path, const NitiBackend *b) {
  json_t *file = NULL;
  *out = NULL;
  NitiTuning *t = calloc(1, sizeof *t);
  if (t) t->path = strdup(path);
  NitiStatus status = t && t->path ? read_file(&file, path) : no_memory(path);
  if (status == NITI_ERROR_MEMORY) {
    niti_tuning_close(t);
    return status;
  }
  if (status == NITI_OK)
    adopt(t, file, b);
  else
    refuse(t);
  json_decref(file);
  t->facts.path = t->path;
  t->facts.note = t->note[0] ? t->note : NULL;
  *out = t;
  return NITI_OK;
}

void niti_tuning_close(NitiTuning *t) {
  if (!t) return;
  json_decref(t->ways);
  free(t->path);
  free(t);
}

const NitiTuningFacts *niti_backend_tuning(const NitiBackend *b) { return b->tuning ? &b->tuning->facts : NULL; }

void niti_tuning_name(char name[NITI_CONVOLUTION_MAX], const NitiConvCall *call) {
  static const char *const directions[] = {"forward", "backward", "gradient"};
  const NitiConv *s = &call->shape;
  char groups[24] = "";
  if (niti_conv_grouped(s)) (void)snprintf(groups, sizeof groups, ", %d groups", s->groups);
  (void)snprintf(name, NITI_CONVOLUTION_MAX, "%s %dx%dx%dx%d to %d, %dx%d, stride %dx%d, pad %dx%d%s%s",
                 directions[call->direction], s->n, s->h, s->w, s->c, s->k, s->kh, s->kw, s->stride_h, s->stride_w, s->pad_h,
                 s->pad_w, groups, call->nonnegative ? ", nonnegative" : "");
}

bool niti_tuning_find(NitiTuning *t, const NitiBackend *b, const NitiConvCall *call, int *way) {
  char name[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  *way = 0;
  if (!t || !t->ways) return false;
  niti_tuning_name(name, call);
  const char *wanted = json_string_value(json_object_get(t->ways, name));
  if (!wanted) return false;
  const int count = b->kernels->conv_ways(b, call, ways);
  for (int i = 0; i < count; ++i) {
    if (strcmp(ways[i].name, wanted) != 0) continue;
    *way = ways[i].number;
    return true;
  }
  note(t, "%s: \"%.48s\" is no way to run \"%s\" here, so the cost model chooses; `niti tune` measures again", t->path, wanted,
       name);
  t->facts.note = t->note;
  t->facts.damaged = true;
  return false;
}

/* ---- writing ---- */

static NitiStatus begin(json_t **out, const char *path) {
  *out = json_pack("{s:s, s:i, s:[]}", "format", format, "version", (int)VERSION, "devices");
  return *out ? NITI_OK : no_memory(path);
}

/* The file as it is, or an empty one where there is none that can be read. */
static NitiStatus read_or_begin(json_t **out, const char *path) {
  bool there;
  *out = NULL;
  NITI_TRY(niti_path_is_file(&there, path));
  if (there && read_file(out, path) == NITI_ERROR_MEMORY) return NITI_ERROR_MEMORY;
  return *out ? NITI_OK : begin(out, path);
}

/* The ways of this device and build, made where they are not there. NULL: out of memory. */
static json_t *ways_of(json_t *file, const NitiBackend *b) {
  json_t *entry = entry_of(file, b);
  if (!entry) {
    entry = json_pack("{s:s, s:s, s:i}", "hardware", b->ops->hardware(b), "kernels", b->ops->kernels(b), "threads",
                      b->ops->threads(b));
    if (json_array_append_new(json_object_get(file, "devices"), entry) != 0) return NULL;
  }
  const bool kept = is_text(entry, "build", niti_kernels_digest) && json_is_object(json_object_get(entry, "ways"));
  if (!kept && (json_object_set_new(entry, "build", json_string(niti_kernels_digest)) != 0 ||
                json_object_set_new(entry, "ways", json_object()) != 0))
    return NULL;
  return json_object_get(entry, "ways");
}

static NitiStatus add_ways(json_t *file, const char *path, const NitiBackend *b, const char *const *convolutions,
                           const char *const *ways, int32_t count) {
  json_t *object = ways_of(file, b);
  for (int32_t i = 0; object && i < count; ++i) {
    if (json_object_set_new(object, convolutions[i], json_string(ways[i])) != 0) object = NULL;
  }
  return object ? NITI_OK : no_memory(path);
}

typedef struct Measured {
  const NitiBackend *backend;
  const char *const *convolutions, *const *ways;
  int32_t count;
} Measured;

/* Whether read_file takes it: what a stranger's file has may be within the limits there alone, between blanks. */
static bool is_readable(const char *text, const char *path) {
  const size_t size = strlen(text);
  return size < BYTES_MAX && niti_json_check(text, size, DEPTH, SIZE_MAX, 0, path) == NITI_OK;
}

/* The text of the content with what was measured added, for the caller to free; NULL: read_file would not take it. Without line
 * ends where it is too long with them. */
static NitiStatus make_text(char **text, json_t *content, const char *path, const Measured *m) {
  static const size_t flags[] = {JSON_INDENT(1), JSON_COMPACT};
  NITI_TRY(add_ways(content, path, m->backend, m->convolutions, m->ways, m->count));
  for (size_t i = 0; i < sizeof flags / sizeof *flags; ++i) {
    *text = niti_json_text(content, flags[i]);
    if (!*text) return no_memory(path);
    if (is_readable(*text, path)) return NITI_OK;
    free(*text);
    *text = NULL;
  }
  return NITI_OK;
}

static NitiStatus put(NitiFile *file, json_t *content, const Measured *m) {
  const char *path = niti_file_path(file);
  json_t *fresh = NULL;
  char *text = NULL;
  NitiStatus status = make_text(&text, content, path, m);
  if (status == NITI_OK && !text) status = begin(&fresh, path);
  if (fresh) status = make_text(&text, fresh, path, m);
  if (status == NITI_OK && !text) status = niti_fail(NITI_ERROR_FILE, "%s: too many convolutions for one file", path);
  if (status == NITI_OK) status = niti_file_write(file, text, strlen(text));
  if (status == NITI_OK) status = niti_file_write(file, "\n", 1);
  json_decref(fresh);
  free(text);
  return status;
}

NitiStatus niti_tuning_write(const char *path, const NitiBackend *b, const char *const *convolutions, const char *const *ways,
                             int32_t count) {
  const Measured measured = {b, convolutions, ways, count};
  NitiFile *file = NULL;
  json_t *content = NULL;
  NITI_TRY(niti_file_open_patiently(&file, path));
  NitiStatus status = read_or_begin(&content, path);
  if (status == NITI_OK) status = put(file, content, &measured);
  json_decref(content);
  if (status == NITI_OK) return niti_file_commit(file, NULL);
  niti_file_discard(file);
  return status;
}
