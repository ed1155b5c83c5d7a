// libjpeg-turbo. Compiled without it (GMML_JPEG is not defined), nothing is decoded here.
#include "jpeg.h"

#include "exif.h"
#include "icc.h"

#ifdef GMML_JPEG
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <jpeglib.h>

namespace gmml {

namespace {

// sharp's limit, so that both decoders take the same files.
constexpr int64_t kPixelLimit = 0x3fff * 0x3fff;
// What a progressive file may hold beside the result: 150 million pixels in 4:2:0. Larger ones are sharp's.
constexpr long kMemoryLimit = 512l << 20;
// A few bytes can ask for a pass over all coefficients. Encoders make about ten.
constexpr int kScanLimit = 100;
// Chroma of 4:2:0 is interpolated: pixels at an edge of the decoded columns would miss their neighbours on the other side.
constexpr int kMargin = 4;

bool holds(const jpeg_marker_struct& marker, const char* text) {
  const auto* end = marker.data + marker.data_length;
  return std::search(marker.data, const_cast<JOCTET*>(end), text, text + std::strlen(text)) != end;
}

bool beginsWith(const jpeg_marker_struct& marker, const char* text, size_t length) {
  return marker.data_length >= length && std::memcmp(marker.data, text, length) == 0;
}

// Ultra HDR: XMP or ISO 21496-1 says that a second image brightens this one. What that comes to is for others.
bool isGainMap(const jpeg_marker_struct& marker) {
  return beginsWith(marker, "urn:iso:std:iso:ts:21496", 24) || (beginsWith(marker, "http:", 5) && holds(marker, "hdrgm"));
}

}  // namespace

// libjpeg is left by longjmp, so between `attempt` and libjpeg nothing may have a destructor.
struct JpegReader::State {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  jmp_buf leave;
  std::vector<uint8_t> row;
  std::unique_ptr<JOCTET, decltype(&std::free)> profile{nullptr, &std::free};

  State() {
    info.err = jpeg_std_error(&errors);
    errors.error_exit = [](j_common_ptr common) { giveUp(common); };
    errors.output_message = [](j_common_ptr) {};
    errors.emit_message = [](j_common_ptr common, int level) {
      if (level < 0) giveUp(common);  // a warning
    };
    progress.progress_monitor = [](j_common_ptr common) {
      if (reinterpret_cast<j_decompress_ptr>(common)->input_scan_number > kScanLimit) giveUp(common);
    };
    info.client_data = this;
  }

  [[noreturn]] static void giveUp(j_common_ptr common) { std::longjmp(static_cast<State*>(common->client_data)->leave, 1); }

  template <typename Work>
  bool attempt(Work work) {
    if (setjmp(leave)) return false;
    return work();
  }

  void open(const uint8_t* bytes, size_t length) {
    jpeg_create_decompress(&info);
    info.mem->max_memory_to_use = kMemoryLimit;
    info.progress = &progress;
    jpeg_mem_src(&info, bytes, static_cast<unsigned long>(length));
    for (const int marker : {JPEG_APP0 + 1, JPEG_APP0 + 2}) jpeg_save_markers(&info, marker, 0xffff);
  }

  bool usual() const {
    const bool grey = info.jpeg_color_space == JCS_GRAYSCALE && info.num_components == 1;
    const bool colour = (info.jpeg_color_space == JCS_YCbCr || info.jpeg_color_space == JCS_RGB) && info.num_components == 3;
    const int64_t pixels = static_cast<int64_t>(info.image_width) * info.image_height;
    return (grey || colour) && info.data_precision == 8 && !info.arith_code && pixels <= kPixelLimit;
  }

  // The orientation, or 0 if a marker asks for more than decoding.
  int readMarkers() {
    int orientation = 1, exifs = 0, profiles = 0;
    for (auto* marker = info.marker_list; marker; marker = marker->next) {
      if (isGainMap(*marker)) return 0;
      profiles += marker->marker == JPEG_APP0 + 2 && beginsWith(*marker, "ICC_PROFILE", 12);
      if (marker->marker != JPEG_APP0 + 1 || !beginsWith(*marker, "Exif", 4)) continue;
      orientation = ++exifs == 1 ? exifOrientation(marker->data, marker->data_length) : 0;
      if (orientation == 0) return 0;
    }
    return profiles == 0 || hasSrgbProfile() ? orientation : 0;
  }

  // Pixels of other colour spaces must be converted.
  bool hasSrgbProfile() {
    JOCTET* data = nullptr;
    unsigned int length = 0;
    if (info.jpeg_color_space == JCS_GRAYSCALE || !jpeg_read_icc_profile(&info, &data, &length)) return false;
    profile.reset(data);
    return isSrgb(data, length);
  }

  bool start(int eighths) {
    info.scale_num = eighths;
    info.scale_denom = 8;
    info.out_color_space = JCS_RGB;
    return jpeg_start_decompress(&info);
  }

  void readRows(const Box& box, const std::function<void(const uint8_t*)>& take) {
    const int margin = std::min(kMargin, box.left);
    JDIMENSION left = box.left - margin;
    JDIMENSION width = std::min<JDIMENSION>(margin + box.width + kMargin, info.output_width - left);
    jpeg_crop_scanline(&info, &left, &width);  // widens it to whole blocks
    if (box.top > 0) jpeg_skip_scanlines(&info, box.top);
    for (int y = 0; y < box.height; ++y) {
      readRow();
      take(row.data() + 3 * (box.left - left));
    }
  }

  void readRow() {
    JSAMPROW rows = row.data();
    jpeg_read_scanlines(&info, &rows, 1);
  }

  // Skipping to the very end would not look at the bytes in between: the last row is read for its own sake.
  void finish() {
    const auto left = info.output_height - info.output_scanline;
    if (left > 1) jpeg_skip_scanlines(&info, left - 1);
    if (left > 0) readRow();
    jpeg_finish_decompress(&info);
  }
};

JpegReader::JpegReader(const uint8_t* bytes, size_t length) : state_(std::make_unique<State>()) {
  state_->attempt([&] {
    state_->open(bytes, length);
    return true;
  });
}

JpegReader::~JpegReader() { jpeg_destroy_decompress(&state_->info); }

bool JpegReader::readHeader(JpegHeader& header) {
  auto& info = state_->info;
  return state_->attempt([&] {
    if (!info.src || jpeg_read_header(&info, TRUE) != JPEG_HEADER_OK || !state_->usual()) return false;
    header = {static_cast<int>(info.image_width), static_cast<int>(info.image_height), state_->readMarkers()};
    return header.orientation != 0;
  });
}

bool JpegReader::decode(int eighths, const Box& box, const std::function<void(const uint8_t*)>& take) {
  return state_->attempt([&] {
    if (!state_->start(eighths)) return false;
    state_->row.resize(3 * static_cast<size_t>(state_->info.output_width) + kRowSlack);
    state_->readRows(box, take);
    state_->finish();
    return true;
  });
}

#define GMML_TEXT_OF(value) #value
#define GMML_TEXT(value) GMML_TEXT_OF(value)
const char* jpegVersion() { return GMML_TEXT(LIBJPEG_TURBO_VERSION); }

}  // namespace gmml

#else

namespace gmml {

struct JpegReader::State {};
JpegReader::JpegReader(const uint8_t*, size_t) {}
JpegReader::~JpegReader() = default;
bool JpegReader::readHeader(JpegHeader&) { return false; }
bool JpegReader::decode(int, const Box&, const std::function<void(const uint8_t*)>&) { return false; }
const char* jpegVersion() { return nullptr; }

}  // namespace gmml

#endif
