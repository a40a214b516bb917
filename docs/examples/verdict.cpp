// What an exported model says of one image: verdict MODEL.onnx IMAGE.ppm
//
// Compile with the headers of ONNX Runtime's C and C++ API, and link its library. With a release of
// ONNX Runtime that was unpacked to the folder $ORT, that is
//
//     g++ -std=c++17 verdict.cpp -I$ORT/include -L$ORT/lib -Wl,-rpath,$ORT/lib -lonnxruntime -o verdict
//
// A PPM file (P6) is a line of text and the bytes of the pixels; a camera hands out the latter.

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<std::uint8_t> pixels;  // rows from the top, each pixel red, green, blue
};

// The next number of the header of a PPM file, after any comments.
std::int64_t next_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') {
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  std::int64_t number = 0;
  file >> number;
  return number;
}

Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind(2, ' ');
  file.read(kind.data(), 2);
  Image image;
  image.width = next_number(file);
  image.height = next_number(file);
  const std::int64_t white = next_number(file);
  file.get();  // the one white space before the pixels
  if (!file || kind != "P6" || white != 255 || image.width < 1 || image.height < 1) {
    throw std::runtime_error(path + " is no PPM file of 8 bits (P6)");
  }
  image.pixels.resize(static_cast<std::size_t>(image.height * image.width * 3));
  file.read(reinterpret_cast<char*>(image.pixels.data()),
            static_cast<std::streamsize>(image.pixels.size()));
  if (!file) {
    throw std::runtime_error(path + " ends before its last pixel");
  }
  return image;
}

int run(const std::string& model, const std::string& path) {
  Image image = read_ppm(path);

  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "verdict");
  Ort::SessionOptions options;
  // Not `model.c_str()`: on Windows a session takes a path of wide characters, as a path has them.
  Ort::Session session(environment, std::filesystem::path(model).c_str(), options);

  const std::vector<std::int64_t> shape{1, image.height, image.width, 3};
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const Ort::Value input = Ort::Value::CreateTensor<std::uint8_t>(
      memory, image.pixels.data(), image.pixels.size(), shape.data(), shape.size());

  // A model that has seen no good images gives no p-value.
  std::vector<std::string> found;
  Ort::AllocatorWithDefaultOptions allocator;
  for (std::size_t i = 0; i < session.GetOutputCount(); ++i) {
    const std::string name = session.GetOutputNameAllocated(i, allocator).get();
    if (name == "score" || name == "decision" || name == "p_value") {
      found.push_back(name);
    }
  }
  std::vector<const char*> outputs;
  for (const std::string& name : found) {
    outputs.push_back(name.c_str());
  }
  const char* const inputs[] = {"image"};
  const std::vector<Ort::Value> results = session.Run(
      Ort::RunOptions{nullptr}, inputs, &input, 1, outputs.data(), outputs.size());

  std::cout << std::setprecision(std::numeric_limits<double>::max_digits10);
  for (std::size_t i = 0; i < found.size(); ++i) {
    std::cout << found[i] << ' ';
    if (found[i] == "decision") {  // 1 for normal, -1 for anomalous
      std::cout << results[i].GetTensorData<std::int64_t>()[0];
    } else {
      std::cout << results[i].GetTensorData<double>()[0];
    }
    std::cout << '\n';
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: verdict MODEL.onnx IMAGE.ppm\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2]);
  } catch (const std::exception& error) {  // also what ONNX Runtime throws
    std::cerr << error.what() << '\n';
    return 1;
  }
}
