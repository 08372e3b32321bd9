/* Writes for TensorBoard the recipe, as text and value by value as the run's settings, and pictures. */
#include "train/report_events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"
#include "io/events.h"
#include "platform/text.h"

enum { SETTINGS_MAX = 128, KEY_MAX = 128 };

typedef struct Settings {
  NitiSetting list[SETTINGS_MAX];
  size_t count;
} Settings;

/* Takes `value`, which may be NULL: out of memory. */
static NitiStatus add(Settings *s, const char *name, char *value, bool plain) {
  NitiSetting *setting = &s->list[s->count];
  if (s->count == SETTINGS_MAX) { /* more than any recipe has */
    free(value);
    return NITI_OK;
  }
  *setting = (NitiSetting){.name = strdup(name), .value = value, .plain = plain};
  ++s->count;
  return setting->name && value ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for the run's settings");
}

/* A tree on one line. */
static void put(FILE *to, const NitiYaml *node) {
  const bool mapping = node->kind == NITI_YAML_MAPPING;
  if (node->kind == NITI_YAML_SCALAR) {
    fputs(node->text, to);
    return;
  }
  fputc(mapping ? '{' : '[', to);
  for (size_t i = 0; i < node->count; ++i) {
    fprintf(to, "%s%s%s", i ? ", " : "", mapping ? node->keys[i]->text : "", mapping ? ": " : "");
    put(to, node->items[i]);
  }
  fputc(mapping ? '}' : ']', to);
}

static NitiStatus add_list(Settings *s, const char *name, const NitiYaml *node) {
  NitiTextMemory memory;
  if (niti_text_open(&memory)) put(memory.to, node);
  return add(s, name, niti_text_close(&memory, NULL), false);
}

static NitiStatus add_all(Settings *s, const char *within, const NitiYaml *mapping) {
  for (size_t i = 0; i < mapping->count; ++i) {
    const NitiYaml *value = mapping->items[i];
    char name[KEY_MAX];
    if (*within == 0 && strcmp(mapping->keys[i]->text, "model") == 0 && value->kind == NITI_YAML_MAPPING) continue;
    (void)snprintf(name, sizeof name, "%s%s%s", within, *within ? "." : "", mapping->keys[i]->text);
    if (value->kind == NITI_YAML_MAPPING)
      NITI_TRY(add_all(s, name, value));
    else if (value->kind == NITI_YAML_SEQUENCE)
      NITI_TRY(add_list(s, name, value));
    else
      NITI_TRY(add(s, name, strdup(value->text), !value->quoted));
  }
  return NITI_OK;
}

static NitiStatus write_settings(NitiEvents *events, const NitiRecipe *recipe) {
  NitiYamlDocument *document;
  Settings s = {.count = 0};
  NITI_TRY(niti_yaml_parse(&document, recipe->text, recipe->source));
  const NitiYaml *root = niti_yaml_root(document), *model = niti_yaml_get(root, "model");
  NitiStatus status = add_all(&s, "", root);
  if (status == NITI_OK && (!model || model->kind == NITI_YAML_MAPPING))
    status = add(&s, "model", strdup(recipe->model->name), false);
  if (status == NITI_OK) status = niti_events_settings(events, s.list, s.count);
  for (size_t i = 0; i < s.count; ++i) {
    free(s.list[i].name);
    free(s.list[i].value);
  }
  niti_yaml_close(document);
  return status;
}

/* A block of code in Markdown. */
static NitiStatus write_text(NitiEvents *events, const char *tag, const char *yaml) {
  const size_t size = strlen(yaml) + 32;
  char *text = malloc(size);
  if (!text) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the recipe as text");
  (void)snprintf(text, size, "```yaml\n%s\n```\n", yaml);
  const NitiStatus status = niti_events_text(events, tag, 0, text);
  free(text);
  return status;
}

NitiStatus niti_report_events_recipe(NitiEvents *events, const NitiRecipe *recipe) {
  NITI_TRY(write_text(events, "recipe", recipe->text));
  NITI_TRY(write_text(events, "model", recipe->model->text));
  NITI_TRY(write_settings(events, recipe));
  return niti_events_flush(events);
}

/* A picture without pixels is not written. */
static NitiStatus write_picture(NitiEvents *events, const char *tag, int64_t step, const NitiPicture *picture) {
  uint8_t *png;
  size_t size;
  if (!picture->rgb) return NITI_OK;
  NITI_TRY(niti_picture_png(&png, &size, picture));
  const NitiStatus status = niti_events_image(events, tag, step, png, size, picture->width, picture->height, 3);
  free(png);
  return status;
}

NitiStatus niti_report_events_confusion(NitiEvents *events, const char *split, int64_t step, const NitiConfusion *confusion) {
  static const struct {
    const char *name;
    NitiStatus (*draw)(NitiPicture *, const NitiConfusion *);
  } pictures[] = {{"confusion", niti_confusion_picture}, {"misclassified", niti_confusion_page}};
  for (size_t i = 0; i < sizeof pictures / sizeof *pictures; ++i) {
    NitiPicture picture;
    char tag[64];
    (void)snprintf(tag, sizeof tag, "%s/%s", split, pictures[i].name);
    NITI_TRY(pictures[i].draw(&picture, confusion));
    const NitiStatus status = write_picture(events, tag, step, &picture);
    niti_picture_close(&picture);
    NITI_TRY(status);
  }
  return NITI_OK;
}
