/* Writes TensorBoard event files. */
#include "io/events.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorboard.pb-c.h>

#include "platform/clock.h"
#include "platform/environment.h"
#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"

enum { ROOM = 1 << 15 };

struct NitiEvents {
  int fd;
  char *path;
  size_t used; /* bytes of buffer */
  uint8_t buffer[ROOM];
};

/* CRC-32C of the 16 values of a nibble: polynomial 0x82f63b78, bits reflected. */
static const uint32_t crc_nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

uint32_t niti_crc32c(const void *data, size_t size) {
  const uint8_t *bytes = data;
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < size; ++i) {
    crc = crc_nibble[(crc ^ bytes[i]) & 15] ^ (crc >> 4);
    crc = crc_nibble[(crc ^ (uint32_t)(bytes[i] >> 4)) & 15] ^ (crc >> 4);
  }
  return ~crc;
}

static void put_little(uint8_t *out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out[i] = (uint8_t)(value >> (8 * i));
}

/* The masked CRC of a TFRecord frame: rotated and offset, so that a CRC of data that holds CRCs stays useful. */
static void put_crc(uint8_t out[4], const void *data, size_t size) {
  const uint32_t crc = niti_crc32c(data, size);
  put_little(out, ((crc >> 15) | (crc << 17)) + 0xa282ead8u, 4);
}

NitiStatus niti_events_flush(NitiEvents *events) {
  const size_t used = events->used;
  events->used = 0;
  return niti_file_put(events->fd, events->buffer, used, events->path);
}

static NitiStatus put(NitiEvents *events, const void *data, size_t size) {
  if (size > ROOM - events->used) NITI_TRY(niti_events_flush(events));
  if (size > ROOM) return niti_file_put(events->fd, data, size, events->path);
  memcpy(events->buffer + events->used, data, size);
  events->used += size;
  return NITI_OK;
}

/* length (8 bytes), its CRC (4), data, its CRC (4). */
static NitiStatus write_record(NitiEvents *events, const uint8_t *data, size_t size) {
  uint8_t head[12], tail[4];
  put_little(head, size, 8);
  put_crc(head + 8, head, 8);
  put_crc(tail, data, size);
  NITI_TRY(put(events, head, sizeof head));
  NITI_TRY(put(events, data, size));
  return put(events, tail, sizeof tail);
}

/* Stamps the event with the time and writes it. */
static NitiStatus write_event(NitiEvents *events, Niti__Tensorboard__Event *event) {
  event->wall_time = (double)niti_clock_wall() * 1e-9;
  const size_t size = niti__tensorboard__event__get_packed_size(event); /* never 0: it contains the time */
  uint8_t *data = malloc(size);
  if (!data) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", events->path);
  (void)niti__tensorboard__event__pack(event, data);
  const NitiStatus status = write_record(events, data, size);
  free(data);
  return status;
}

/* TensorBoard reads a folder's files in order of their names. If the second is taken (a run resumed at once), uses the next. */
static NitiStatus create_file(NitiEvents *events, const char *dir) {
  char host[256], name[384];
  niti_environment_host(host, sizeof host);
  for (char *at = host; *at; ++at)
    if (*at == '/') *at = '-';
  const int64_t start = niti_clock_wall() / 1000000000;
  for (long long extra = 0; extra < 1000; ++extra) {
    (void)snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s.niti", (long long)start + extra, host);
    free(events->path);
    NITI_TRY(niti_path_join(&events->path, dir, name));
    events->fd = niti_system.open(events->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (events->fd >= 0) return NITI_OK;
    if (errno != EEXIST) break;
  }
  return niti_fail_errno(events->path, "create the file");
}

NitiStatus niti_events_open(NitiEvents **out, const char *dir) {
  *out = NULL;
  NitiEvents *events = calloc(1, sizeof *events);
  if (!events) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", dir);
  events->fd = -1;
  NitiStatus status = create_file(events, dir);
  if (status == NITI_OK) {
    Niti__Tensorboard__Event event = NITI__TENSORBOARD__EVENT__INIT;
    char version[] = "brain.Event:2";
    event.what_case = NITI__TENSORBOARD__EVENT__WHAT_FILE_VERSION;
    event.file_version = version;
    status = write_event(events, &event);
  }
  if (status == NITI_OK) status = niti_events_flush(events);
  if (status != NITI_OK) {
    if (events->fd >= 0) (void)niti_system.close(events->fd);
    free(events->path);
    free(events);
    return status;
  }
  *out = events;
  return NITI_OK;
}

NitiStatus niti_events_start(NitiEvents *events, int64_t step) {
  Niti__Tensorboard__Event event = NITI__TENSORBOARD__EVENT__INIT;
  Niti__Tensorboard__SessionLog session = NITI__TENSORBOARD__SESSION_LOG__INIT;
  session.status = NITI__TENSORBOARD__SESSION_LOG__STATUS__START;
  event.step = step;
  event.what_case = NITI__TENSORBOARD__EVENT__WHAT_SESSION_LOG;
  event.session_log = &session;
  return write_event(events, &event);
}

/* Writes a summary of one value, whose kind and content are set. */
static NitiStatus write_value(NitiEvents *events, const char *tag, int64_t step, Niti__Tensorboard__Summary__Value *value) {
  Niti__Tensorboard__Event event = NITI__TENSORBOARD__EVENT__INIT;
  Niti__Tensorboard__Summary summary = NITI__TENSORBOARD__SUMMARY__INIT;
  Niti__Tensorboard__Summary__Value *values[1] = {value};
  value->tag = (char *)tag; /* only read */
  summary.n_value = 1;
  summary.value = values;
  event.step = step;
  event.what_case = NITI__TENSORBOARD__EVENT__WHAT_SUMMARY;
  event.summary = &summary;
  return write_event(events, &event);
}

NitiStatus niti_events_scalar(NitiEvents *events, const char *tag, int64_t step, double value) {
  Niti__Tensorboard__Summary__Value message = NITI__TENSORBOARD__SUMMARY__VALUE__INIT;
  message.value_case = NITI__TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE;
  message.simple_value = (float)value;
  return write_value(events, tag, step, &message);
}

NitiStatus niti_events_ratio(NitiEvents *events, const char *tag, int64_t step, int64_t numerator, int64_t denominator) {
  if (denominator == 0) return NITI_OK;
  return niti_events_scalar(events, tag, step, (double)numerator / (double)denominator);
}

NitiStatus niti_events_histogram(NitiEvents *events, const char *tag, int64_t step, const int64_t counts[NITI_EVENTS_BINS],
                                 int32_t exponent) {
  double limits[NITI_EVENTS_BINS], buckets[NITI_EVENTS_BINS];
  int first = 0, last = NITI_EVENTS_BINS - 1;
  while (first < NITI_EVENTS_BINS && counts[first] == 0) ++first;
  while (last > first && counts[last] == 0) --last;
  if (first == NITI_EVENTS_BINS) return NITI_OK;
  const double unit = ldexp(1.0, exponent);
  Niti__Tensorboard__Histogram histogram = NITI__TENSORBOARD__HISTOGRAM__INIT;
  for (int i = first; i <= last; ++i) {
    const double mantissa = i - 127, count = (double)counts[i];
    histogram.num += count;
    histogram.sum += count * mantissa * unit;
    histogram.sum_squares += count * mantissa * mantissa * unit * unit;
    limits[i - first] = (mantissa + 0.5) * unit; /* midway to the next mantissa */
    buckets[i - first] = count;
  }
  histogram.min = (first - 127) * unit;
  histogram.max = (last - 127) * unit;
  histogram.n_bucket_limit = histogram.n_bucket = (size_t)last - (size_t)first + 1;
  histogram.bucket_limit = limits;
  histogram.bucket = buckets;
  Niti__Tensorboard__Summary__Value message = NITI__TENSORBOARD__SUMMARY__VALUE__INIT;
  message.value_case = NITI__TENSORBOARD__SUMMARY__VALUE__VALUE_HISTO;
  message.histo = &histogram;
  return write_value(events, tag, step, &message);
}

NitiStatus niti_events_image(NitiEvents *events, const char *tag, int64_t step, const uint8_t *png, size_t size, int32_t width,
                             int32_t height, int32_t channels) {
  Niti__Tensorboard__Summary__Image image = NITI__TENSORBOARD__SUMMARY__IMAGE__INIT;
  Niti__Tensorboard__Summary__Value message = NITI__TENSORBOARD__SUMMARY__VALUE__INIT;
  image.width = width;
  image.height = height;
  image.colorspace = channels;
  image.encoded_image_string = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)png}; /* only read */
  message.value_case = NITI__TENSORBOARD__SUMMARY__VALUE__VALUE_IMAGE;
  message.image = &image;
  return write_value(events, tag, step, &message);
}

/* ---- Plugins ------------------------------------------------------------------------------------------------------ */

/* Writes a tensor for the plugin, which alone reads `content`. */
static NitiStatus write_tensor(NitiEvents *events, const char *tag, int64_t step, Niti__Tensorboard__Tensor *tensor, char *plugin,
                               ProtobufCBinaryData content) {
  Niti__Tensorboard__Shape shape = NITI__TENSORBOARD__SHAPE__INIT;
  Niti__Tensorboard__Metadata__PluginData data = NITI__TENSORBOARD__METADATA__PLUGIN_DATA__INIT;
  Niti__Tensorboard__Metadata metadata = NITI__TENSORBOARD__METADATA__INIT;
  Niti__Tensorboard__Summary__Value message = NITI__TENSORBOARD__SUMMARY__VALUE__INIT;
  tensor->tensor_shape = &shape;
  data.plugin_name = plugin;
  data.content = content;
  metadata.plugin_data = &data;
  message.value_case = NITI__TENSORBOARD__SUMMARY__VALUE__VALUE_TENSOR;
  message.tensor = tensor;
  message.metadata = &metadata;
  return write_value(events, tag, step, &message);
}

NitiStatus niti_events_text(NitiEvents *events, const char *tag, int64_t step, const char *text) {
  char plugin[] = "text";
  ProtobufCBinaryData string = {.len = strlen(text), .data = (uint8_t *)(uintptr_t)text}; /* only read */
  Niti__Tensorboard__Tensor tensor = NITI__TENSORBOARD__TENSOR__INIT;
  tensor.dtype = NITI__TENSORBOARD__TENSOR__TYPE__STRING;
  tensor.n_string_val = 1;
  tensor.string_val = &string;
  return write_tensor(events, tag, step, &tensor, plugin, (ProtobufCBinaryData){0});
}

/* The plugin reads what the metadata hold; the tensor is only there because a summary must have a value. */
static NitiStatus write_hparams(NitiEvents *events, const char *tag, const Niti__Tensorboard__Hparams *hparams) {
  char plugin[] = "hparams";
  float zero = 0;
  Niti__Tensorboard__Tensor tensor = NITI__TENSORBOARD__TENSOR__INIT;
  tensor.dtype = NITI__TENSORBOARD__TENSOR__TYPE__FLOAT;
  tensor.n_float_val = 1;
  tensor.float_val = &zero;
  ProtobufCBinaryData content = {.len = niti__tensorboard__hparams__get_packed_size(hparams)};
  content.data = malloc(content.len);
  if (!content.data) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", events->path);
  (void)niti__tensorboard__hparams__pack(hparams, content.data);
  const NitiStatus status = write_tensor(events, tag, 0, &tensor, plugin, content);
  free(content.data);
  return status;
}

static void set_value(Niti__Tensorboard__HparamsValue *value, const NitiSetting *setting) {
  char *end = NULL;
  const char *text = setting->value;
  niti__tensorboard__hparams_value__init(value);
  value->kind_case = NITI__TENSORBOARD__HPARAMS_VALUE__KIND_STRING_VALUE;
  value->string_value = setting->value;
  if (!setting->plain) return;
  if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
    value->kind_case = NITI__TENSORBOARD__HPARAMS_VALUE__KIND_BOOL_VALUE;
    value->bool_value = text[0] == 't';
  } else if (*text && strspn(text, "-.0123456789") == strlen(text)) {
    const double number = strtod(text, &end);
    if (*end) return;
    value->kind_case = NITI__TENSORBOARD__HPARAMS_VALUE__KIND_NUMBER_VALUE;
    value->number_value = number;
  }
}

/* What the settings need as messages. */
typedef struct SettingMessages {
  Niti__Tensorboard__HparamsEntry entry;
  Niti__Tensorboard__HparamsValue value;
} SettingMessages;

NitiStatus niti_events_settings(NitiEvents *events, const NitiSetting *settings, size_t count) {
  Niti__Tensorboard__Hparams hparams = NITI__TENSORBOARD__HPARAMS__INIT;
  Niti__Tensorboard__HparamsStart start = NITI__TENSORBOARD__HPARAMS_START__INIT;
  SettingMessages *messages = calloc(count + 1, sizeof *messages);
  Niti__Tensorboard__HparamsEntry **entries = calloc(count + 1, sizeof *entries);
  NitiStatus status = NITI_OK;
  if (messages && entries) {
    for (size_t i = 0; i < count; ++i) {
      niti__tensorboard__hparams_entry__init(&messages[i].entry);
      set_value(&messages[i].value, &settings[i]);
      messages[i].entry.key = settings[i].name;
      messages[i].entry.value = &messages[i].value;
      entries[i] = &messages[i].entry;
    }
    start.n_hparams = count;
    start.hparams = entries;
    start.start_time_secs = (double)niti_clock_wall() * 1e-9;
    hparams.data_case = NITI__TENSORBOARD__HPARAMS__DATA_SESSION_START_INFO;
    hparams.session_start_info = &start;
    status = write_hparams(events, "_hparams_/session_start_info", &hparams);
  } else {
    status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", events->path);
  }
  free(messages);
  free(entries);
  return status;
}

NitiStatus niti_events_success(NitiEvents *events) {
  Niti__Tensorboard__Hparams hparams = NITI__TENSORBOARD__HPARAMS__INIT;
  Niti__Tensorboard__HparamsEnd end = NITI__TENSORBOARD__HPARAMS_END__INIT;
  end.status = NITI__TENSORBOARD__HPARAMS_END__STATUS__SUCCESS;
  end.end_time_secs = (double)niti_clock_wall() * 1e-9;
  hparams.data_case = NITI__TENSORBOARD__HPARAMS__DATA_SESSION_END_INFO;
  hparams.session_end_info = &end;
  return write_hparams(events, "_hparams_/session_end_info", &hparams);
}

NitiStatus niti_events_close(NitiEvents *events) {
  if (!events) return NITI_OK;
  NitiStatus status = niti_events_flush(events);
  if (niti_system.close(events->fd) && errno != EINTR && status == NITI_OK) status = niti_fail_errno(events->path, "write");
  free(events->path);
  free(events);
  return status;
}
