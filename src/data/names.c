/* Lists of texts, and the names of classes. */
#include <limits.h> /* NAME_MAX */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format.h"
#include "platform/file.h"

enum { NAMES_BYTES_MAX = 1 << 30 };

NitiStatus niti_paths_add(NitiPaths *paths, const char *text, const char *dir) {
  if (paths->count == paths->capacity) {
    const size_t capacity = paths->capacity ? 2 * paths->capacity : 8;
    char **grown = realloc(paths->path, capacity * sizeof *grown);
    if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a list", dir);
    paths->path = grown;
    paths->capacity = capacity;
  }
  char *copy = strdup(text);
  if (!copy) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a list", dir);
  paths->path[paths->count++] = copy;
  return NITI_OK;
}

void niti_paths_close(NitiPaths *paths) {
  for (size_t i = 0; i < paths->count; ++i) free(paths->path[i]);
  free(paths->path);
  memset(paths, 0, sizeof *paths);
}

void niti_names_close(char **names, int32_t count) {
  if (!names) return;
  for (int32_t i = 0; i < count; ++i) free(names[i]);
  free(names);
}

/* A text's lines, without the white space at their ends and at the end of the text. */
typedef struct Lines {
  char *next;
  int32_t number; /* of the line taken last, from 1 */
} Lines;

/* The next line; NULL: there is none. */
static char *take_line(Lines *lines) {
  if (!*lines->next) return NULL;
  char *start = lines->next, *end = start + strcspn(start, "\n");
  lines->next = *end ? end + 1 : end;
  while (end > start && strchr("\r \t", end[-1])) --end;
  *end = 0;
  ++lines->number;
  return start;
}

static Lines lines_of(char *text) {
  size_t size = strlen(text);
  while (size > 0 && strchr(" \t\r\n", text[size - 1])) --size;
  text[size] = 0;
  return (Lines){.next = text + (strncmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0)};
}

/* Reads DIR/NAME; *text NULL: there is none. The caller frees *text and *path. */
static NitiStatus open_lines(Lines *lines, char **text, char **path, const char *dir, const char *name) {
  size_t size = 0;
  *text = NULL;
  NITI_TRY(niti_path_join(path, dir, name));
  bool there;
  NITI_TRY(niti_path_is_entry(&there, *path));
  if (!there) return NITI_OK;
  NITI_TRY(niti_file_read(text, &size, *path, NAMES_BYTES_MAX));
  if (strlen(*text) != size) return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: a zero byte in a text", *path, strlen(*text));
  *lines = lines_of(*text);
  return NITI_OK;
}

static NitiStatus parse_names(char **names, Lines *lines, const char *path, int32_t count) {
  for (char *line; (line = take_line(lines)) != NULL;) {
    const int32_t number = lines->number;
    if (!*line || number > count)
      return niti_fail(NITI_ERROR_FORMAT, "%s: line %d: expected %s", path, number, *line ? "the end" : "a class name");
    names[number - 1] = strdup(line);
    if (!names[number - 1]) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
  }
  if (lines->number == count) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: line %d: expected %d class names, one per line, found %d", path, lines->number + 1,
                   count, lines->number);
}

NitiStatus niti_names_read(char ***out, const char *dir, const char *name, int32_t count) {
  Lines lines = {0};
  char *text = NULL, *path = NULL;
  *out = NULL;
  NitiStatus status = open_lines(&lines, &text, &path, dir, name);
  if (status == NITI_OK && text) {
    char **names = calloc((size_t)count, sizeof *names);
    status =
        names ? parse_names(names, &lines, path, count) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
    if (status == NITI_OK)
      *out = names;
    else
      niti_names_close(names, count);
  }
  free(text);
  free(path);
  return status;
}

/* The class with that name; -1: none. Folders' names are sorted by their bytes. */
static int32_t class_named(const NitiDataset *dataset, const char *name, size_t length) {
  int32_t from = 0, end = dataset->classes;
  while (from < end) {
    const int32_t middle = from + (end - from) / 2;
    const int order = strncmp(name, dataset->names[middle], length);
    if (order == 0 && !dataset->names[middle][length]) return middle;
    if (order > 0)
      from = middle + 1;
    else
      end = middle;
  }
  return -1;
}

/* The class of a line, the longest name that fits, and the text after it and white space; -1: none. */
static int32_t class_of_line(const char **text, const NitiDataset *dataset, const char *line) {
  for (size_t length = strnlen(line, NAME_MAX); length > 0; --length) {
    if (line[length] && !strchr(" \t", line[length])) continue;
    const int32_t class = class_named(dataset, line, length);
    *text = line + length + strspn(line + length, " \t");
    if (class >= 0) return class;
  }
  return -1;
}

static NitiStatus parse_labels(NitiDataset *dataset, Lines *lines, const char *path) {
  int32_t taken = 0;
  for (char *line; (line = take_line(lines)) != NULL;) {
    const char *text = NULL;
    const int32_t class = class_of_line(&text, dataset, line);
    if (class < 0) continue;
    if (dataset->labels[class])
      return niti_fail(NITI_ERROR_FORMAT, "%s: line %d: a second line for class '%s'", path, lines->number,
                       dataset->names[class]);
    dataset->labels[class] = strdup(*text ? text : dataset->names[class]);
    if (!dataset->labels[class]) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
    ++taken;
  }
  if (taken > 0) return NITI_OK;
  return niti_dataset_add_note(dataset, "%s: not used: no line begins with the name of a class folder, such as '%s'", path,
                               dataset->names[0]);
}

NitiStatus niti_labels_read(NitiDataset *dataset, const char *dir) {
  Lines lines = {0};
  char *text = NULL, *path = NULL;
  NitiStatus status = open_lines(&lines, &text, &path, dir, "classes.txt");
  if (status == NITI_OK && text) {
    dataset->labels = calloc((size_t)dataset->classes, sizeof *dataset->labels);
    status = dataset->labels ? parse_labels(dataset, &lines, path)
                             : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for class names", path);
  }
  free(text);
  free(path);
  return status;
}
