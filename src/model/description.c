/* Opens descriptions from built-ins, files and text, and reads everything in them but the layers. */
#include "model/description.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/builtin.h"
#include "config/closest.h"
#include "model/description_yaml.h"

enum { CLASSES_MIN = 2, CLASSES_MAX = 65536 };

const char *const *niti_builtin_models(void) { return niti_builtin_model_names; }

NitiStatus niti_description_classes(int32_t *out, const NitiYaml *node) {
  return niti_yaml_int(out, node, "classes", CLASSES_MIN, CLASSES_MAX);
}

NitiStatus niti_description_input(NitiShape *out, const NitiYaml *node) {
  int32_t size[3];
  if (node->kind != NITI_YAML_SEQUENCE || node->count != 3) {
    return niti_yaml_fail(node, "input: expected [height, width, channels]");
  }
  for (size_t i = 0; i < 3; ++i) NITI_TRY(niti_yaml_int(&size[i], node->items[i], "input", 1, NITI_DIMENSION_MAX));
  if (size[2] > NITI_CHANNELS_MAX)
    return niti_yaml_fail(node, "input: %d channels (expected at most %d)", size[2], NITI_CHANNELS_MAX);
  *out = (NitiShape){1, size[0], size[1], size[2]};
  if (niti_shape_image(*out) > NITI_VALUES_MAX) {
    return niti_yaml_fail(node, "input: %zu values (expected at most %d)", niti_shape_image(*out), NITI_VALUES_MAX);
  }
  return NITI_OK;
}

static NitiStatus check_overrides(const NitiDescriptionOverrides *o, const char *source) {
  const NitiShape s = o->input;
  if (o->classes != 0 && (o->classes < CLASSES_MIN || o->classes > CLASSES_MAX)) {
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: %d classes asked for (expected %d to %d)", source, o->classes, CLASSES_MIN,
                     CLASSES_MAX);
  }
  if (s.h != 0 && (s.h < 1 || s.w < 1 || s.c < 1 || s.h > NITI_DIMENSION_MAX || s.w > NITI_DIMENSION_MAX ||
                   s.c > NITI_CHANNELS_MAX || niti_shape_image(s) > NITI_VALUES_MAX)) {
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "%s: an input of %dx%dx%d asked for (expected 1 to %d each, %d channels and %d values in all)", source, s.h,
                     s.w, s.c, NITI_DIMENSION_MAX, NITI_CHANNELS_MAX, NITI_VALUES_MAX);
  }
  return NITI_OK;
}

/* Writes the overrides into the mapping, so that the values read and the text kept agree. */
static NitiStatus apply_overrides(NitiYamlDocument *document, NitiYaml *mapping, const NitiDescriptionOverrides *o,
                                  const char *source) {
  NITI_TRY(check_overrides(o, source));
  if (o->classes != 0) niti_yaml_put(document, mapping, "classes", niti_yaml_printf(document, "%d", o->classes));
  if (o->input.h != 0) {
    NitiYaml *input = niti_yaml_sequence(document);
    niti_yaml_append(document, input, niti_yaml_printf(document, "%d", o->input.h));
    niti_yaml_append(document, input, niti_yaml_printf(document, "%d", o->input.w));
    niti_yaml_append(document, input, niti_yaml_printf(document, "%d", o->input.c));
    niti_yaml_put(document, mapping, "input", input);
  }
  return NITI_OK;
}

static NitiStatus freeze_layer(NitiDescription *d, const NitiYaml *item) {
  char name[NITI_NAME_MAX], hint[NITI_HINT_MAX];
  const char *names[NITI_NODES_MAX + 1];
  size_t count = 0;
  NITI_TRY(niti_yaml_name(name, sizeof name, item, "freeze"));
  for (int32_t i = 0; i < d->node_count; ++i) {
    NitiDescribedNode *node = &d->nodes[i];
    if (!node->spec.type->weight_shape) continue;
    names[count++] = node->spec.name;
    if (strcmp(node->spec.name, name) != 0) continue;
    node->frozen = true;
    return NITI_OK;
  }
  names[count] = NULL;
  return niti_yaml_fail(item, "freeze: '%s' is no layer with weights%s (expected: one of model '%s')", name,
                        niti_did_you_mean(hint, name, names), d->name);
}

NitiStatus niti_description_freeze(NitiDescription *d, const NitiYaml *list) {
  NITI_TRY(niti_yaml_want_sequence(list, "freeze"));
  for (int32_t i = 0; i < d->node_count; ++i) d->nodes[i].frozen = false;
  for (size_t i = 0; i < list->count; ++i) NITI_TRY(freeze_layer(d, list->items[i]));
  bool trained = list->count == 0;
  for (int32_t i = 0; i < d->node_count && !trained; ++i) trained = d->nodes[i].spec.type->weight_shape && !d->nodes[i].frozen;
  if (trained) return NITI_OK;
  return niti_yaml_fail(list, "freeze: every layer with weights is frozen (expected at least one that is trained)");
}

static NitiStatus read_description(NitiDescription *d, const NitiYamlDocument *document, const NitiYaml *mapping) {
  static const char *const keys[] = {"name", "input", "classes", "blocks", "layers", "freeze", NULL};
  NitiYaml *node;
  NITI_TRY(niti_yaml_want_keys(mapping, "model", keys));
  NITI_TRY(niti_yaml_want(&node, mapping, "model", "name"));
  NITI_TRY(niti_yaml_name(d->name, sizeof d->name, node, "name"));
  NITI_TRY(niti_yaml_want(&node, mapping, "model", "input"));
  NITI_TRY(niti_description_input(&d->input, node));
  NITI_TRY(niti_yaml_want(&node, mapping, "model", "classes"));
  NITI_TRY(niti_description_classes(&d->classes, node));
  NITI_TRY(niti_description_expand(d, mapping));
  if ((node = niti_yaml_get(mapping, "freeze")) != NULL) NITI_TRY(niti_description_freeze(d, node));
  return niti_yaml_write(&d->text, document, mapping);
}

NitiStatus niti_description_from_yaml(NitiDescription **out, NitiYamlDocument *document, NitiYaml *mapping, const char *source,
                                      const NitiDescriptionOverrides *overrides) {
  *out = NULL;
  NITI_TRY(niti_yaml_want_mapping(mapping, "model"));
  if (overrides) NITI_TRY(apply_overrides(document, mapping, overrides, source));
  NitiDescription *d = calloc(1, sizeof *d);
  if (d) d->source = strdup(source);
  NitiStatus status = d && d->source ? read_description(d, document, mapping)
                                     : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the description", source);
  if (status != NITI_OK) {
    niti_description_close(d);
    return status;
  }
  *out = d;
  return NITI_OK;
}

NitiStatus niti_description_parse(NitiDescription **out, const char *text, const char *source,
                                  const NitiDescriptionOverrides *overrides) {
  NitiYamlDocument *document;
  *out = NULL;
  NITI_TRY(niti_yaml_parse(&document, text, source));
  const NitiStatus status = niti_description_from_yaml(out, document, niti_yaml_root(document), source, overrides);
  niti_yaml_close(document);
  return status;
}

NitiStatus niti_description_load(NitiDescription **out, const char *model, const NitiDescriptionOverrides *overrides) {
  *out = NULL;
  if (niti_yaml_is_path(model)) {
    NitiYamlDocument *document;
    NITI_TRY(niti_yaml_read(&document, model));
    const NitiStatus status = niti_description_from_yaml(out, document, niti_yaml_root(document), model, overrides);
    niti_yaml_close(document);
    return status;
  }
  const char *text = niti_builtin_model_text(model);
  char source[NITI_NAME_MAX + 16];
  if (!text) {
    char names[512], hint[NITI_HINT_MAX];
    return niti_fail(NITI_ERROR_ARGUMENT, "no built-in model '%s'%s (expected: %s, or a file with '/' or ending in .yaml)", model,
                     niti_did_you_mean(hint, model, niti_builtin_model_names),
                     niti_builtin_list(names, sizeof names, niti_builtin_model_names));
  }
  (void)snprintf(source, sizeof source, "built-in %s", model);
  return niti_description_parse(out, text, source, overrides);
}

void niti_description_close(NitiDescription *description) {
  if (!description) return;
  free(description->source);
  free(description->text);
  free(description->nodes);
  free(description);
}
