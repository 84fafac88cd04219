"Reproducible transfer learning on radiographs: four papers, from DICOM to every table and figure."
__version__ = "0.1.0"
