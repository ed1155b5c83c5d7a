// Parts of images that are resized each to one size: of JPEG files, which are decoded once for all parts, and of pixels that something else has
// decoded. On a libuv worker, or at once for a caller that is a worker itself.
#include "arguments.h"
#include "exports.h"
#include "jpeg.h"
#include "promised-work.h"

#include <climits>
#include <cmath>
#include <cstring>

namespace gmml {

namespace {

// Pixels along a side of a reduced part for each pixel of the result, at least.
constexpr int kGap = 2;

struct Part {
  Box box;  // of the upright image; later of the stored one
  bool flip;
};

// Where the pixels of an upright image lie in the stored one, which EXIF may want turned and mirrored.
struct Orientation {
  bool sideways, mirrorX, mirrorY;  // the mirrors in stored columns and rows

  explicit Orientation(int exif)
      : sideways(exif >= 5), mirrorX(exif == 2 || exif == 3 || exif == 7 || exif == 8),
        mirrorY(exif == 3 || exif == 4 || exif == 6 || exif == 7) {}

  Extent stored(Extent upright) const { return sideways ? Extent{upright.height, upright.width} : upright; }

  Box stored(const Box& box, const JpegHeader& image) const {
    Box turned = sideways ? Box{box.top, box.left, box.height, box.width} : box;
    if (mirrorX) turned.left = image.width - turned.left - turned.width;
    if (mirrorY) turned.top = image.height - turned.top - turned.height;
    return turned;
  }
};

// Where a part lies in the reduced image.
Area reduced(const Box& box, int eighths) {
  const double factor = eighths / 8.0;
  return {box.left * factor, box.top * factor, box.width * factor, box.height * factor};
}

// The pixels that all parts need.
Box around(const std::vector<Part>& parts, int eighths) {
  int left = INT_MAX, top = INT_MAX, right = 0, bottom = 0;
  for (const auto& part : parts) {
    const auto area = reduced(part.box, eighths);
    left = std::min(left, static_cast<int>(std::floor(area.left)));
    top = std::min(top, static_cast<int>(std::floor(area.top)));
    right = std::max(right, static_cast<int>(std::ceil(area.left + area.width)));
    bottom = std::max(bottom, static_cast<int>(std::ceil(area.top + area.height)));
  }
  return {left, top, right - left, bottom - top};
}

// The smallest reduction of 8/8, 4/8, 2/8 and 1/8 at which each side of each part has twice as many pixels as the result. Reducing is taking
// means of squares of pixels, and cubic weights on fewer means than that are no longer those on the pixels: the result would be sharper than
// a resized image, by two to five grey levels on average in finely drawn pictures. The other reductions exist in libjpeg-turbo, but without
// SIMD code: they take longer than 8/8.
int reductionFor(const std::vector<Part>& parts, Extent result) {
  const auto enough = [&](int eighths) {
    return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
      return static_cast<int64_t>(part.box.width) * eighths >= kGap * 8ll * result.width &&
             static_cast<int64_t>(part.box.height) * eighths >= kGap * 8ll * result.height;
    });
  };
  int eighths = 8;
  while (eighths > 1 && enough(eighths / 2)) eighths /= 2;
  return eighths;
}

// From planes [3, H, W] to planes [3, W, H].
void transpose(const uint8_t* from, Extent size, uint8_t* to) {
  const size_t width = size.width, height = size.height;
  for (int plane = 0; plane < 3; ++plane, from += width * height) {
    for (size_t x = 0; x < width; ++x) {
      for (size_t y = 0; y < height; ++y) *to++ = from[y * width + x];
    }
  }
}

// Planes of some parts, one after another.
size_t lengthOf(const std::vector<Part>& parts, Extent size) { return 3ull * size.width * size.height * parts.size(); }

// What is to be done with one JPEG file.
class JpegJob {
 public:
  JpegJob(std::vector<Part> parts, Extent size) : parts_(std::move(parts)), size_(size) {}

  size_t length() const { return lengthOf(parts_, size_); }

  // `length()` bytes to `planes`. false for what another decoder may do.
  bool run(const uint8_t* bytes, size_t length, uint8_t* planes) {
    try {
      return decode(bytes, length, planes);
    } catch (const std::bad_alloc&) {
      return false;  // another decoder may do with less
    }
  }

 private:
  bool decode(const uint8_t* bytes, size_t length, uint8_t* to) {
    JpegHeader header;
    JpegReader reader(bytes, length);
    if (!reader.readHeader(header)) return false;
    const Orientation orientation(header.orientation);
    for (auto& part : parts_) {
      part.box = orientation.stored(part.box, header);
      const auto& box = part.box;
      if (box.left < 0 || box.top < 0 || box.left > header.width - box.width || box.top > header.height - box.height) return false;
    }
    const auto size = orientation.stored(size_);
    const int eighths = reductionFor(parts_, size);
    const auto box = around(parts_, eighths);
    // What lies on its side is resized as it lies, and turned at the end.
    std::vector<uint8_t> lying(orientation.sideways ? this->length() : 0);
    auto* planes = orientation.sideways ? lying.data() : to;
    const size_t each = 3ull * size.width * size.height;
    std::vector<Resizer> resizers;
    resizers.reserve(parts_.size());
    for (size_t i = 0; i < parts_.size(); ++i) {
      // A flip turns the upright columns round: those are stored rows if the image lies on its side.
      const bool flip = parts_[i].flip;
      const Mirror mirror{orientation.mirrorX != (flip && !orientation.sideways), orientation.mirrorY != (flip && orientation.sideways)};
      resizers.emplace_back(reduced(parts_[i].box, eighths), box, size, mirror, planes + i * each);
    }
    const auto take = [&](const uint8_t* row) {
      for (auto& resizer : resizers) resizer.push(row);
    };
    if (!reader.decode(eighths, box, take)) return false;
    for (size_t i = 0; i < parts_.size() && orientation.sideways; ++i) transpose(planes + i * each, size, to + i * each);
    return true;
  }

  std::vector<Part> parts_;
  Extent size_;
};

// What is to be done with the pixels of one image, RGB and interleaved.
class PixelJob {
 public:
  PixelJob(std::vector<Part> parts, Extent size, Extent image) : parts_(std::move(parts)), size_(size), image_(image) {}

  size_t length() const { return lengthOf(parts_, size_); }

  bool run(const uint8_t* pixels, size_t length, uint8_t* planes) {
    const auto box = around(parts_, 8);
    std::vector<Resizer> resizers;
    resizers.reserve(parts_.size());
    const size_t each = 3ull * size_.width * size_.height;
    for (size_t i = 0; i < parts_.size(); ++i) {
      resizers.emplace_back(reduced(parts_[i].box, 8), box, size_, Mirror{parts_[i].flip, false}, planes + i * each);
    }
    const size_t stride = 3ull * image_.width, left = 3ull * box.left;
    std::vector<uint8_t> last(stride + kRowSlack);
    for (int y = box.top; y < box.top + box.height; ++y) {
      const auto* row = pixels + y * stride + left;
      if (y * stride + stride + kRowSlack > length) {
        // Behind the pixels nothing may be read.
        std::memcpy(last.data(), row, stride - left);
        row = last.data();
      }
      for (auto& resizer : resizers) resizer.push(row);
    }
    return true;
  }

 private:
  std::vector<Part> parts_;
  Extent size_, image_;
};

template <typename Job>
class CropWork : public PromisedWork {
 public:
  // The bytes are copied: what JavaScript does with its own meanwhile is no concern of the worker.
  CropWork(const Napi::CallbackInfo& info, const char* name, std::vector<uint8_t> bytes, Job job)
      : PromisedWork(info, name), bytes_(std::move(bytes)), job_(std::move(job)) {}

  void work() override {
    planes_.resize(job_.length());
    done_ = job_.run(bytes_.data(), bytes_.size(), planes_.data());
  }

  Napi::Value result() override {
    if (!done_) return Env().Null();
    auto array = Napi::Uint8Array::New(Env(), planes_.size());
    std::memcpy(array.Data(), planes_.data(), planes_.size());
    return array;
  }

 private:
  std::vector<uint8_t> bytes_, planes_;
  Job job_;
  bool done_ = false;
};

struct Bytes {
  uint8_t* data;
  size_t length;
};

Bytes bytesAt(const Napi::CallbackInfo& info, size_t index) {
  const auto value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) refuseAt(info, index, "a Uint8Array");
  // The pointer straight from Node-API: the array may lie in a SharedArrayBuffer, which Napi::ArrayBuffer is not.
  void* data = nullptr;
  size_t length = 0;
  napi_get_typedarray_info(info.Env(), value, nullptr, &length, &data, nullptr, nullptr);
  return {static_cast<uint8_t*>(data), length};
}

// Five numbers for each part: left, top, width, height, flip.
std::vector<Part> partsAt(const Napi::CallbackInfo& info, size_t index) {
  const auto value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) refuseAt(info, index, "an Int32Array");
  const auto numbers = value.As<Napi::Int32Array>();
  if (numbers.ElementLength() == 0 || numbers.ElementLength() % 5 != 0) refuseAt(info, index, "five numbers for each of one or more parts");
  std::vector<Part> parts;
  for (size_t i = 0; i < numbers.ElementLength(); i += 5) {
    if (numbers[i + 2] < 1 || numbers[i + 3] < 1) refuseAt(info, index, "parts of at least 1 x 1 pixels");
    parts.push_back({{numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]}, numbers[i + 4] != 0});
  }
  return parts;
}

int sideAt(const Napi::CallbackInfo& info, size_t index) {
  const double side = numberAt(info, index);
  if (!(side >= 1 && side <= INT_MAX) || side != std::floor(side)) refuseAt(info, index, "a length in whole pixels");
  return static_cast<int>(side);
}

// (parts, height, width) from the second argument on.
std::pair<std::vector<Part>, Extent> cropsAt(const Napi::CallbackInfo& info) {
  auto parts = partsAt(info, 1);
  const Extent size{sideAt(info, 3), sideAt(info, 2)};
  if (3.0 * size.height * size.width * static_cast<double>(parts.size()) > 1ull << 31) refuseAt(info, 2, "results of at most 2 GiB");
  return {std::move(parts), size};
}

JpegJob jpegJobOf(const Napi::CallbackInfo& info) {
  auto [parts, size] = cropsAt(info);
  return {std::move(parts), size};
}

// The width of the image is the last argument.
PixelJob pixelJobOf(const Napi::CallbackInfo& info, const Bytes& pixels) {
  auto [parts, size] = cropsAt(info);
  const int width = sideAt(info, info.Length() - 1);
  const size_t height = pixels.length / 3 / width;
  if (height == 0 || height > INT_MAX || pixels.length != 3 * height * width) refuseAt(info, 0, "whole rows of pixels of that width");
  const Extent image{width, static_cast<int>(height)};
  for (const auto& [box, flip] : parts) {
    const bool inside = box.left >= 0 && box.top >= 0 && box.left <= image.width - box.width && box.top <= image.height - box.height;
    if (!inside) refuseAt(info, 1, "parts inside the image");
  }
  return {std::move(parts), size, image};
}

template <typename Job>
Napi::Value start(const Napi::CallbackInfo& info, const char* name, Job job, const Bytes& bytes) {
  return (new CropWork<Job>(info, name, std::vector<uint8_t>(bytes.data, bytes.data + bytes.length), std::move(job)))->start();
}

template <typename Job>
Napi::Value runHere(const Napi::CallbackInfo& info, Job job, const Bytes& bytes) {
  const auto planes = bytesAt(info, 4);
  if (planes.length != job.length()) refuseAt(info, 4, "an array as long as the planes of all parts");
  return Napi::Boolean::New(info.Env(), job.run(bytes.data, bytes.length, planes.data));
}

Napi::Value jpegSize(const Napi::CallbackInfo& info) {
  const auto bytes = bytesAt(info, 0);
  JpegHeader header;
  JpegReader reader(bytes.data, bytes.length);
  if (!reader.readHeader(header)) return info.Env().Null();
  if (header.sideways()) std::swap(header.width, header.height);
  const int64_t size[] = {header.width, header.height};
  return fromSizes(info.Env(), size);
}

Napi::Value decodeJpeg(const Napi::CallbackInfo& info) {
  const auto bytes = bytesAt(info, 0);
  return start(info, "decodeJpeg", jpegJobOf(info), bytes);
}

Napi::Value decodeJpegSync(const Napi::CallbackInfo& info) {
  const auto bytes = bytesAt(info, 0);
  return runHere(info, jpegJobOf(info), bytes);
}

Napi::Value resizePixels(const Napi::CallbackInfo& info) {
  const auto pixels = bytesAt(info, 0);
  return start(info, "resizePixels", pixelJobOf(info, pixels), pixels);
}

Napi::Value resizePixelsSync(const Napi::CallbackInfo& info) {
  const auto pixels = bytesAt(info, 0);
  return runHere(info, pixelJobOf(info, pixels), pixels);
}

}  // namespace

void initImages(Napi::Env env, Napi::Object& exports, Environment& environment) {
  exportFunction<"jpegSize", jpegSize>(env, exports, environment);
  exportFunction<"decodeJpeg", decodeJpeg>(env, exports, environment);
  exportFunction<"decodeJpegSync", decodeJpegSync>(env, exports, environment);
  exportFunction<"resizePixels", resizePixels>(env, exports, environment);
  exportFunction<"resizePixelsSync", resizePixelsSync>(env, exports, environment);
}

}  // namespace gmml
