/* Expands layers as written, with blocks, repeats and residuals, into the flat list of nodes, and checks every shape. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/builtin.h"
#include "config/closest.h"
#include "model/description_yaml.h"

enum { FIELDS_MAX = 15, WEIGHTS_MAX = INT32_MAX };

/* What is added to given names: the names of the enclosing blocks before, the numbers of the repeats after. */
typedef struct Scope {
  char prefix[NITI_NAME_MAX], suffix[NITI_NAME_MAX];
} Scope;

typedef struct Expander {
  NitiDescription *description;
  int32_t capacity;
  NitiShape *shapes;      /* of node i, 0 the input; [capacity + 1] */
  const NitiYaml *blocks; /* mapping, or NULL */
  bool *active, *used;    /* of each block: being expanded now; ever used */
  int depth;
} Expander;

static NitiStatus expand_layers(Expander *e, const NitiYaml *layers, const char *what, const Scope *scope, int32_t *tip);

/* Fails for a description that is well formed but cannot be built. */
__attribute__((format(printf, 3, 4))) static NitiStatus impossible(const NitiYaml *item, const char *name, const char *format,
                                                                   ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  (void)niti_fail(NITI_ERROR_MODEL, "%s", text);
  return niti_yaml_fail_within(NITI_ERROR_MODEL, item, "%s", name);
}

/* ---- Names ---- */

static void automatic_name(char name[NITI_NAME_MAX], const Expander *e, const NitiLayerType *type) {
  int ordinal = 1;
  for (int32_t i = 0; i < e->description->node_count; ++i) ordinal += e->description->nodes[i].spec.type == type;
  (void)snprintf(name, NITI_NAME_MAX, "%s%d", type->name, ordinal);
}

/* prefix + name + suffix. */
static NitiStatus compose(char out[NITI_NAME_MAX], const Scope *scope, const NitiYaml *node, const char *name) {
  const int length = snprintf(out, NITI_NAME_MAX, "%s%s%s", scope->prefix, name, scope->suffix);
  if (length < NITI_NAME_MAX) return NITI_OK;
  return niti_yaml_fail(node, "name '%s%s%s' is longer than %d characters", scope->prefix, name, scope->suffix,
                        NITI_NAME_MAX - 1);
}

static NitiStatus given_name(NitiLayerSpec *spec, const Scope *scope, const NitiYaml *fields) {
  const NitiYaml *node = fields ? niti_yaml_get(fields, "name") : NULL;
  char name[NITI_NAME_MAX], what[NITI_NAME_MAX + 8];
  if (!node) return NITI_OK;
  (void)snprintf(what, sizeof what, "%s: name", spec->name);
  NITI_TRY(niti_yaml_name(name, sizeof name, node, what));
  return compose(spec->name, scope, node, name);
}

static NitiStatus check_name(const Expander *e, const NitiLayerSpec *spec, const NitiYaml *item) {
  for (int32_t i = 0; i < e->description->node_count; ++i) {
    const NitiLayerSpec *other = &e->description->nodes[i].spec;
    if (strcmp(other->name, spec->name) != 0) continue;
    return niti_yaml_fail(item, "%s: the name is taken by the layer at line %d, node %d (expected a unique name)", spec->name,
                          other->line, i + 1);
  }
  return NITI_OK;
}

/* ---- Fields ---- */

static int32_t *field_value(NitiLayerSpec *spec, const NitiLayerField *field) {
  return (int32_t *)(void *)((char *)spec + field->offset);
}

static void set_defaults(NitiLayerSpec *spec, const NitiLayerField *fields) {
  for (const NitiLayerField *f = fields; f->name; ++f) {
    int32_t *value = field_value(spec, f);
    value[0] = f->fallback;
    if (f->kind == NITI_FIELD_PAIR) value[1] = f->fallback;
  }
}

static NitiStatus read_field(NitiLayerSpec *spec, const NitiLayerField *f, const NitiYaml *node, int32_t classes) {
  int32_t *value = field_value(spec, f);
  char what[NITI_NAME_MAX + 32];
  (void)snprintf(what, sizeof what, "%s: %.24s", spec->name, f->name);
  if (f->kind == NITI_FIELD_CHOICE) return niti_yaml_choice(value, node, what, f->choices);
  if (f->kind == NITI_FIELD_COUNT) {
    if (!niti_yaml_is_word(node, "classes")) return niti_yaml_int(value, node, what, f->min, f->max);
    *value = classes;
    return NITI_OK;
  }
  if (f->kind == NITI_FIELD_MILLIONTHS) return niti_yaml_millionths(value, node, what, f->min, f->max);
  if (f->kind == NITI_FIELD_FLAG) {
    bool flag = false;
    NITI_TRY(niti_yaml_bool(&flag, node, what));
    *value = flag;
    return NITI_OK;
  }
  if (f->kind == NITI_FIELD_GROUPS) {
    *value = NITI_GROUPS_CHANNELS;
    return niti_yaml_is_word(node, "channels") ? NITI_OK : niti_yaml_int(value, node, what, f->min, f->max);
  }
  if (node->kind == NITI_YAML_SCALAR) {
    NITI_TRY(niti_yaml_int(value, node, what, f->min, f->max));
    value[1] = value[0];
    return NITI_OK;
  }
  if (node->kind != NITI_YAML_SEQUENCE || node->count != 2) {
    return niti_yaml_fail(node, "%s: expected an integer or [height, width]", what);
  }
  NITI_TRY(niti_yaml_int(&value[0], node->items[0], what, f->min, f->max));
  return niti_yaml_int(&value[1], node->items[1], what, f->min, f->max);
}

/* Reads a layer's mapping (NULL: none written) into its spec, whose type and automatic name are set. */
static NitiStatus read_fields(NitiLayerSpec *spec, const NitiYaml *item, const NitiYaml *mapping, int32_t classes) {
  const NitiLayerField *fields = spec->type->fields;
  const char *keys[FIELDS_MAX + 2];
  size_t count = 0;
  for (const NitiLayerField *f = fields; f->name && count < FIELDS_MAX; ++f) keys[count++] = f->name;
  keys[count++] = "name";
  keys[count] = NULL;
  if (mapping) NITI_TRY(niti_yaml_want_keys(mapping, spec->name, keys));
  set_defaults(spec, fields);
  for (const NitiLayerField *f = fields; f->name; ++f) {
    const NitiYaml *node = mapping ? niti_yaml_get(mapping, f->name) : NULL;
    if (node) {
      NITI_TRY(read_field(spec, f, node, classes));
    } else if (f->required) {
      return niti_yaml_fail(item, "%s: missing key '%s'", spec->name, f->name);
    }
  }
  for (const NitiLayerField *f = fields; f->name; ++f) { /* once the kernel is known */
    int32_t *value = field_value(spec, f);
    if (f->kind == NITI_FIELD_PAIR && f->fallback == NITI_FIELD_SAME_AS_KERNEL && value[0] == NITI_FIELD_SAME_AS_KERNEL) {
      value[0] = spec->kernel[0];
      value[1] = spec->kernel[1];
    }
  }
  return NITI_OK;
}

/* ---- Nodes ---- */

static NitiStatus grow(Expander *e) {
  NitiDescription *d = e->description;
  if (d->node_count < e->capacity) return NITI_OK;
  const int32_t capacity = e->capacity ? 2 * e->capacity : 32;
  NitiDescribedNode *nodes = realloc(d->nodes, (size_t)capacity * sizeof *nodes);
  if (nodes) d->nodes = nodes;
  NitiShape *shapes = realloc(e->shapes, ((size_t)capacity + 1) * sizeof *shapes);
  if (shapes) e->shapes = shapes;
  if (!nodes || !shapes) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %d layers", d->source, capacity);
  e->capacity = capacity;
  return NITI_OK;
}

/* Computes the output shape, and checks the sizes of the output and the weights. */
static NitiStatus check_shape(NitiShape *out, const NitiLayerSpec *spec, const NitiShape *in, const NitiYaml *item) {
  const NitiStatus status = spec->type->shape(spec, in, out);
  if (status != NITI_OK) return niti_yaml_fail_within(status, item, "%s", spec->name);
  if (out->h < 1 || out->w < 1 || out->c < 1 || niti_shape_image(*out) > NITI_VALUES_MAX) {
    return impossible(item, spec->name, "an output of %dx%dx%d values per image (expected 1 to %d)", out->h, out->w, out->c,
                      NITI_VALUES_MAX);
  }
  if (!spec->type->weight_shape) return NITI_OK;
  NitiShape weight;
  spec->type->weight_shape(spec, in[0], &weight);
  /* n <= 2^16, c <= 2^28 and a kernel of at most 2^20: divide, since the product could wrap. */
  if (weight.n < 1 || niti_shape_image(weight) > WEIGHTS_MAX / (size_t)weight.n) {
    return impossible(item, spec->name, "%dx%dx%dx%d weights (expected at most %d)", weight.n, weight.h, weight.w, weight.c,
                      WEIGHTS_MAX);
  }
  return NITI_OK;
}

/* Appends a node over inputs a and, for types that join, b. *tip becomes its number. */
static NitiStatus add_node(Expander *e, NitiLayerSpec *spec, const NitiYaml *item, int32_t a, int32_t b, int32_t *tip) {
  NitiDescription *d = e->description;
  const int inputs = spec->type->inputs;
  NitiShape in[NITI_INPUTS_MAX] = {{0, 0, 0, 0}};
  if (d->node_count == NITI_NODES_MAX) {
    return impossible(item, spec->name, "the network has more than %d layers", NITI_NODES_MAX);
  }
  NITI_TRY(check_name(e, spec, item));
  NITI_TRY(grow(e));
  in[0] = e->shapes[a];
  if (inputs > 1) in[1] = e->shapes[b];
  NITI_TRY(check_shape(&e->shapes[d->node_count + 1], spec, in, item));
  d->nodes[d->node_count++] = (NitiDescribedNode){.spec = *spec, .inputs = {a, inputs > 1 ? b : -1}, .input_count = inputs};
  *tip = d->node_count;
  return NITI_OK;
}

static void begin_spec(NitiLayerSpec *spec, const Expander *e, const NitiLayerType *type, const NitiYaml *item) {
  memset(spec, 0, sizeof *spec);
  spec->type = type;
  spec->line = item->line;
  spec->column = item->line > 0 ? item->column : 0;
  automatic_name(spec->name, e, type);
}

/* ---- Constructs ---- */

static NitiStatus expand_repeat(Expander *e, const NitiYaml *value, const Scope *scope, int32_t *tip) {
  static const char *const keys[] = {"times", "layers", NULL};
  NitiYaml *node, *layers;
  int32_t times;
  NITI_TRY(niti_yaml_want_keys(value, "repeat", keys));
  NITI_TRY(niti_yaml_want(&node, value, "repeat", "times"));
  NITI_TRY(niti_yaml_int(&times, node, "repeat: times", 1, NITI_NODES_MAX));
  NITI_TRY(niti_yaml_want(&layers, value, "repeat", "layers"));
  for (int32_t i = 1; i <= times; ++i) {
    Scope inner = *scope;
    char suffix[NITI_NAME_MAX + 16];
    (void)snprintf(suffix, sizeof suffix, "%s.%d", scope->suffix, i);
    if (strlen(suffix) >= sizeof inner.suffix) return niti_yaml_fail(value, "repeat: nested too deep for names");
    memcpy(inner.suffix, suffix, strlen(suffix) + 1);
    NITI_TRY(expand_layers(e, layers, "repeat: layers", &inner, tip));
  }
  return NITI_OK;
}

/* `block: NAME` or `block: {use: NAME, name: PREFIX}`. */
static NitiStatus expand_block(Expander *e, const NitiYaml *value, const Scope *scope, int32_t *tip) {
  static const char *const keys[] = {"use", "name", NULL};
  const NitiYaml *use = value;
  Scope inner = *scope;
  char found[NITI_YAML_FOUND_MAX], block[NITI_NAME_MAX];
  if (value->kind == NITI_YAML_MAPPING) {
    NitiYaml *node;
    NITI_TRY(niti_yaml_want_keys(value, "block", keys));
    NITI_TRY(niti_yaml_want(&node, value, "block", "use"));
    use = node;
    if ((node = niti_yaml_get(value, "name")) != NULL) {
      char name[NITI_NAME_MAX], prefix[2 * NITI_NAME_MAX];
      NITI_TRY(niti_yaml_name(name, sizeof name, node, "block: name"));
      (void)snprintf(prefix, sizeof prefix, "%s%s.", scope->prefix, name);
      if (strlen(prefix) >= sizeof inner.prefix) {
        return niti_yaml_fail(node, "block: name '%s%s' is longer than %d characters", scope->prefix, name, NITI_NAME_MAX - 2);
      }
      memcpy(inner.prefix, prefix, strlen(prefix) + 1);
    }
  }
  NITI_TRY(niti_yaml_name(block, sizeof block, use, "block"));
  size_t i = 0;
  while (e->blocks && i < e->blocks->count && strcmp(e->blocks->keys[i]->text, block) != 0) ++i;
  if (!e->blocks || i == e->blocks->count) {
    return niti_yaml_fail(use, "block: no block %s (expected a key of `blocks`)", niti_yaml_found(found, use));
  }
  if (e->active[i]) return niti_yaml_fail(use, "block: %s uses itself", niti_yaml_found(found, use));
  e->active[i] = e->used[i] = true;
  NITI_TRY(expand_layers(e, e->blocks->items[i], block, &inner, tip));
  e->active[i] = false;
  return NITI_OK;
}

static NitiStatus expand_residual(Expander *e, const NitiYaml *item, const NitiYaml *value, const Scope *scope, int32_t *tip) {
  static const char *const keys[] = {"body", "shortcut", "name", NULL};
  const int32_t start = *tip;
  int32_t shortcut = start;
  NitiLayerSpec spec;
  NitiYaml *node;
  NITI_TRY(niti_yaml_want_keys(value, "residual", keys));
  NITI_TRY(niti_yaml_want(&node, value, "residual", "body"));
  NITI_TRY(expand_layers(e, node, "residual: body", scope, tip));
  node = niti_yaml_get(value, "shortcut");
  if (node && !niti_yaml_is_null(node) && !(node->kind == NITI_YAML_SEQUENCE && node->count == 0)) {
    NITI_TRY(expand_layers(e, node, "residual: shortcut", scope, &shortcut));
  }
  begin_spec(&spec, e, niti_layer_joining("residual"), item);
  set_defaults(&spec, spec.type->fields);
  NITI_TRY(given_name(&spec, scope, value));
  return add_node(e, &spec, item, *tip, shortcut, tip);
}

static NitiStatus unknown_layer(const NitiYaml *node) {
  enum { TYPES_MAX = 64 };
  const char *words[TYPES_MAX + 4];
  char found[NITI_YAML_FOUND_MAX], names[384], hint[NITI_HINT_MAX];
  size_t count = 0;
  for (const NitiLayerType *const *t = niti_layer_types(); *t && count < TYPES_MAX; ++t) {
    if (!(*t)->joins) words[count++] = (*t)->name;
  }
  words[count++] = "repeat";
  words[count++] = "block";
  words[count++] = "residual";
  words[count] = NULL;
  return niti_yaml_fail(node, "unknown layer %s%s (expected: %s)", niti_yaml_found(found, node),
                        niti_did_you_mean(hint, node->text, words), niti_builtin_list(names, sizeof names, words));
}

static NitiStatus expand_item(Expander *e, const NitiYaml *item, const Scope *scope, int32_t *tip) {
  const NitiYaml *key = item, *value = NULL;
  char found[NITI_YAML_FOUND_MAX];
  NitiLayerSpec spec;
  if (item->kind == NITI_YAML_MAPPING && item->count == 1) {
    key = item->keys[0];
    value = item->items[0];
  } else if (item->kind == NITI_YAML_MAPPING && item->count > 1) {
    return niti_yaml_fail(item->keys[1],
                          "a layer is one key with its fields below it or in braces, as in conv: {out: 8, kernel: 3}; "
                          "found a second key %s",
                          niti_yaml_found(found, item->keys[1]));
  } else if (item->kind != NITI_YAML_SCALAR || niti_yaml_is_null(item)) {
    return niti_yaml_fail(item, "expected a layer, found %s", niti_yaml_found(found, item));
  }
  const bool repeat = niti_yaml_is_word(key, "repeat"), block = niti_yaml_is_word(key, "block");
  const bool residual = niti_yaml_is_word(key, "residual");
  if (repeat || block || residual) {
    if (!value) return niti_yaml_fail(item, "%s: expected fields, as docs/model-reference.md shows", key->text);
    if (repeat) return expand_repeat(e, value, scope, tip);
    return block ? expand_block(e, value, scope, tip) : expand_residual(e, item, value, scope, tip);
  }
  const NitiLayerType *type = key->quoted ? NULL : niti_layer_find(key->text);
  if (!type || type->joins) return unknown_layer(key);
  if (value && niti_yaml_is_null(value)) value = NULL;
  begin_spec(&spec, e, type, item);
  if (value) NITI_TRY(niti_yaml_want_mapping(value, spec.name));
  NITI_TRY(given_name(&spec, scope, value));
  NITI_TRY(read_fields(&spec, item, value, e->description->classes));
  return add_node(e, &spec, item, *tip, -1, tip);
}

/* Every sequence has at least one layer, so expansion ends: each iteration adds a node, and the number of nodes is bounded. */
static NitiStatus expand_layers(Expander *e, const NitiYaml *layers, const char *what, const Scope *scope, int32_t *tip) {
  NITI_TRY(niti_yaml_want_sequence(layers, what));
  if (layers->count == 0) return niti_yaml_fail(layers, "%s: expected at least one layer", what);
  if (e->depth == NITI_NESTING_MAX) return niti_yaml_fail(layers, "%s: nested more than %d deep", what, NITI_NESTING_MAX);
  ++e->depth;
  for (size_t i = 0; i < layers->count; ++i) NITI_TRY(expand_item(e, layers->items[i], scope, tip));
  --e->depth;
  return NITI_OK;
}

/* ---- Entry ---- */

static NitiStatus read_blocks(Expander *e, const NitiYaml *mapping) {
  const NitiYaml *blocks = niti_yaml_get(mapping, "blocks");
  char name[NITI_NAME_MAX];
  if (!blocks) return NITI_OK;
  NITI_TRY(niti_yaml_want_mapping(blocks, "blocks"));
  for (size_t i = 0; i < blocks->count; ++i) NITI_TRY(niti_yaml_name(name, sizeof name, blocks->keys[i], "blocks"));
  e->blocks = blocks;
  e->active = calloc(2 * blocks->count + 1, sizeof *e->active);
  if (!e->active) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for blocks", e->description->source);
  e->used = e->active + blocks->count;
  return NITI_OK;
}

static NitiStatus expand(Expander *e, const NitiYaml *mapping) {
  const NitiDescription *d = e->description;
  const Scope scope = {"", ""};
  int32_t tip = 0;
  NitiYaml *layers;
  NITI_TRY(niti_yaml_want(&layers, mapping, "model", "layers"));
  NITI_TRY(read_blocks(e, mapping));
  NITI_TRY(grow(e));
  e->shapes[0] = d->input;
  NITI_TRY(expand_layers(e, layers, "layers", &scope, &tip));
  for (size_t i = 0; e->blocks && i < e->blocks->count; ++i) {
    char found[NITI_YAML_FOUND_MAX];
    const NitiYaml *key = e->blocks->keys[i];
    if (!e->used[i]) return niti_yaml_fail(key, "blocks: %s is never used", niti_yaml_found(found, key));
  }
  const NitiShape last = e->shapes[tip];
  if (last.h == 1 && last.w == 1 && last.c == d->classes) return NITI_OK;
  return impossible(layers->items[layers->count - 1], d->nodes[tip - 1].spec.name,
                    "the last layer gives %dx%dx%d, expected 1x1x%d, one value per class", last.h, last.w, last.c, d->classes);
}

NitiStatus niti_description_expand(NitiDescription *description, const NitiYaml *mapping) {
  Expander e = {.description = description};
  const NitiStatus status = expand(&e, mapping);
  free(e.shapes);
  free(e.active);
  return status;
}
