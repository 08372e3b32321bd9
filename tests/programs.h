/* Descriptions, programs and networks for tests of what lies between a description and its results: helpers that fail the test
 * where anything goes wrong, images that are the same in every run, and random networks. Include cmocka before it. */
#ifndef NITI_TESTS_PROGRAMS_H
#define NITI_TESTS_PROGRAMS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "model/lower.h"

static inline void must(NitiStatus status) {
  if (status != NITI_OK) fail_msg("%s", niti_error());
}

static inline NitiDescription *described(const char *text) {
  NitiDescription *description = NULL;
  must(niti_description_parse(&description, text, "a test's model", NULL));
  return description;
}

static inline NitiProgram *lowered(const NitiDescription *description, const NitiLowerOptions *options) {
  NitiProgram *program = NULL;
  must(niti_lower(&program, description, options));
  return program;
}

/* The program of a description given as text. */
static inline NitiProgram *program_of(const char *text, const NitiLowerOptions *options) {
  NitiDescription *description = described(text);
  NitiProgram *program = lowered(description, options);
  niti_description_close(description);
  return program;
}

#endif
